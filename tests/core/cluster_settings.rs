//! Settings of a node of a cluster: which are refused, and that no error has a secret.

use cuttlefish_signaling::Config;
use cuttlefish_signaling::config::cluster::{Cluster, DeviceIdTemplate, EngineUrl, MAX_SECRETS, MIN_SECRET};
use cuttlefish_signaling::core::cluster::registry::Timing;

const PASSWORD: &str = "cAnArY-0123";

fn cluster() -> Cluster {
    Cluster {
        engine: "redis://127.0.0.1:6379".into(),
        name: "lab".into(),
        node: "a".into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        address: None,
        secrets: Vec::new(),
        ca: None,
        hold_on_outage: false,
        device_id_template: None,
        timing: Timing::default(),
    }
}

/// The error for these settings; empty if they are valid.
fn error(change: impl FnOnce(&mut Cluster)) -> String {
    let mut changed = cluster();
    change(&mut changed);
    let config = Config { cluster: Some(changed), ..Config::default() };
    config.validate().err().map(|error| error.to_string()).unwrap_or_default()
}

fn farm(cluster: &mut Cluster) {
    cluster.engine = "redis://redis.lab".into();
    cluster.listen = "10.0.0.5:7443".parse().unwrap();
    cluster.secrets = vec!["x".repeat(MIN_SECRET)];
}

#[test]
fn urls_of_engines_are_parsed() {
    for (text, shown, is_tls, is_loopback) in [
        ("redis://localhost", "redis://localhost", false, true),
        ("redis://127.0.0.2:1/7", "redis://127.0.0.2:1/7", false, true),
        ("redis://user:p%40ss@[::1]:6379/0", "redis://[::1]:6379/0", false, true),
        ("rediss://:pass@redis.lab:6380/", "rediss://redis.lab:6380", true, false),
        ("redis+sentinel://a:26379,b,10.0.0.1:1/farm", "redis+sentinel://a:26379,b,10.0.0.1:1/farm", false, false),
        ("redis+sentinel://127.0.0.1/m?sentinel_password=a/%40+=", "redis+sentinel://127.0.0.1/m", false, true),
        ("rediss+sentinel://a/m?sentinel_username=u&sentinel_password=p", "rediss+sentinel://a/m", true, false),
        ("rediss+sentinel://redis.lab/farm", "rediss+sentinel://redis.lab/farm", true, false),
        ("redis+sentinel://:p@127.0.0.1:1,[::1]/farm", "redis+sentinel://127.0.0.1:1,[::1]/farm", false, true),
        ("redis+sentinel://127.0.0.1:1,redis.lab/farm", "redis+sentinel://127.0.0.1:1,redis.lab/farm", false, false),
    ] {
        let url = EngineUrl::parse(text).unwrap();
        assert_eq!((url.to_string(), url.is_tls(), url.is_loopback()), (shown.to_owned(), is_tls, is_loopback));
    }
}

#[test]
fn urls_that_are_no_engine_are_refused_without_their_password() {
    for (text, what) in [
        ("", "has no scheme"),
        ("redis.lab:6379", "has no scheme"),
        ("http://redis.lab", "has an unknown scheme"),
        ("Redis://redis.lab", "has an unknown scheme"),
        ("cAnArY-0123://redis.lab", "has an unknown scheme"),
        ("redis://", "has a host that is not"),
        ("redis://:cAnArY-0123@", "has a host that is not"),
        ("redis://:cAnArY-0123@redis.lab:0", "has a host that is not"),
        ("redis://:cAnArY-0123@redis.lab:99999", "has a host that is not"),
        ("redis://:cAnArY-0123@redis lab", "has a host that is not"),
        ("redis://:cAnArY/0123@redis.lab", "has one of / @ ? #"),
        ("redis://:cAnArY?0123@redis.lab", "has one of / @ ? #"),
        ("redis://:cAnArY#0123@redis.lab", "has one of / @ ? #"),
        ("redis://:cAnArY-0123@redis.lab/0?protocol=resp3", "has one of / @ ? #"),
        ("redis://a?sentinel_password=cAnArY", "has one of / @ ? #"),
        ("redis+sentinel://:cAnArY?0123@a/m", "has one of / @ ? #"),
        ("redis+sentinel://a/m?sentinel_password=cAnArY#0123", "has one of / @ ? #"),
        ("redis+sentinel://a/m?cAnArY", "has a query of another form"),
        ("redis+sentinel://a/m?password=cAnArY", "has a query of another form"),
        ("redis+sentinel://a/m?sentinel_password=cAnArY&0123", "has a query of another form"),
        ("redis+sentinel://a/m?sentinel_password=cAnArY&sentinel_password=0123", "has two users or two passwords"),
        ("redis+sentinel://a/m?sentinel_username=cAnArY", "has a sentinel_username without a sentinel_password"),
        ("redis+sentinel://a/m?sentinel_password=%ff", "is not UTF-8"),
        ("redis://:cAnArY-0123@a,b", "has 2 hosts"),
        ("redis://:cAnArY-0123@a/master", "has a path that is not the number"),
        ("redis+sentinel://:cAnArY-0123@a,b", "has no name of a master"),
        ("redis+sentinel://:cAnArY-0123@a,b/", "has no name of a master"),
        ("redis+sentinel://:cAnArY-0123@a,,b/farm", "has a host that is not"),
    ] {
        let told = error(|cluster| cluster.engine = text.into());
        assert!(told.starts_with("Cluster.url: "), "{text}: {told}");
        assert!(told.contains(what), "{text}: {told}");
        assert!(!told.contains("cAnArY") && !told.contains("0123"), "{told}");
    }
}

#[test]
fn debug_omits_password_and_secrets() {
    let mut cluster = cluster();
    cluster.engine = format!("redis://user:{PASSWORD}@127.0.0.1");
    cluster.secrets = vec![format!("{PASSWORD}{PASSWORD}{PASSWORD}")];
    let mut by_sentinels = cluster.clone();
    by_sentinels.engine = format!("redis+sentinel://127.0.0.1/m?sentinel_username=user&sentinel_password={PASSWORD}");
    for (cluster, url) in [(cluster, "redis://127.0.0.1"), (by_sentinels, "redis+sentinel://127.0.0.1/m")] {
        let config = Config { cluster: Some(cluster.clone()), ..Config::default() };
        for shown in [format!("{cluster:?}"), format!("{config:?}")] {
            assert!(shown.contains(url) && !shown.contains(PASSWORD) && !shown.contains("user"), "{shown}");
        }
    }
}

#[test]
fn names_have_the_characters_of_host_names() {
    for name in ["a", "Host-1.lab", "x_y", &"n".repeat(64)] {
        assert_eq!(error(|cluster| cluster.name = name.into()), "");
        assert_eq!(error(|cluster| cluster.node = name.into()), "");
    }
    for name in ["", "a b", "a/b", "{a}", "a:b", "n\u{e4}me", "a\n", &"n".repeat(65)] {
        let allowed = "is not a name of 1 to 64 ASCII letters, digits, '-', '_' and '.'";
        assert_eq!(error(|cluster| cluster.name = name.into()), format!("Cluster.name: {name:?} {allowed}"));
        assert_eq!(error(|cluster| cluster.node = name.into()), format!("Cluster.node: {name:?} {allowed}"));
    }
}

#[test]
fn other_nodes_can_dial_the_address() {
    assert_eq!(error(farm), "");
    let listening = |listen: &str, address: Option<&str>| {
        error(|cluster| {
            farm(cluster);
            cluster.listen = listen.parse().unwrap();
            cluster.address = address.map(Into::into);
        })
    };
    assert!(listening("0.0.0.0:7443", None).starts_with("Cluster.address: is missing: no node can dial 0.0.0.0:7443"));
    assert!(listening("[::]:7443", None).starts_with("Cluster.address: is missing"));
    assert!(
        listening("127.0.0.1:7443", None).starts_with("Cluster.listen: 127.0.0.1:7443 is reached from this machine")
    );
    for address in ["node-a.lab:7443", "10.0.0.5:1", "[fd00::1]:7443"] {
        assert_eq!(listening("0.0.0.0:7443", Some(address)), "", "{address}");
        assert_eq!(listening("127.0.0.1:7443", Some(address)), "", "a proxy has {address}");
    }
    for address in ["", "node", ":7443", "node:0", "node:99999", "http://node:1", "a b:1", "0.0.0.0:7443", "[::]:7443"]
    {
        let told = listening("0.0.0.0:7443", Some(address));
        assert!(told.starts_with(&format!("Cluster.address: {address:?} is not the HOST:PORT")), "{told}");
    }
}

#[test]
fn a_secret_is_needed_where_others_reach_engine_or_listener() {
    assert_eq!(error(|_| ()), "");
    let missing = "Cluster.secret: is missing: other machines reach the engine or the listener";
    for change in [
        |cluster: &mut Cluster| cluster.listen = "10.0.0.5:7443".parse().unwrap(),
        |cluster: &mut Cluster| {
            cluster.engine = "redis://redis.lab".into();
            cluster.address = Some("10.0.0.5:7443".into());
        },
        |cluster: &mut Cluster| {
            cluster.engine = "redis+sentinel://127.0.0.1,redis.lab/farm".into();
            cluster.address = Some("10.0.0.5:7443".into());
        },
    ] {
        assert!(error(change).starts_with(missing), "{}", error(change));
        assert_eq!(
            error(|cluster| {
                change(cluster);
                cluster.secrets = vec!["x".repeat(MIN_SECRET)];
            }),
            ""
        );
    }
}

#[test]
fn short_and_too_many_secrets_are_refused_unseen() {
    let told = error(|cluster| cluster.secrets = vec!["y".repeat(MIN_SECRET), PASSWORD.into()]);
    assert_eq!(told, "Cluster.secret: line 2 has 11 bytes, and at least 32 are needed");
    let many = |count| error(|cluster| cluster.secrets = vec!["y".repeat(MIN_SECRET); count]);
    assert_eq!(many(MAX_SECRETS), "");
    assert_eq!(many(MAX_SECRETS + 1), "Cluster.secret: has 17 lines, and at most 16 are allowed");
}

#[test]
fn an_authority_is_read_and_has_a_use() {
    let directory = std::env::temp_dir().join(format!("cluster-ca-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("ca.pem");
    let with = |engine: &str| {
        error(|cluster| {
            cluster.engine = engine.into();
            cluster.ca = Some(file.clone());
        })
    };
    assert!(with("rediss://localhost").starts_with(&format!("Cluster.ca: cannot read {}: ", file.display())));
    for text in ["", "no certificate", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&file, text).unwrap();
        assert!(with("rediss://localhost").starts_with(&format!("Cluster.ca: {} ", file.display())), "{text}");
    }
    let tls = cuttlefish_signaling::Tls::self_signed(&["localhost".into()], None).unwrap();
    std::fs::write(&file, tls.trusted_pem()).unwrap();
    assert_eq!(with("rediss://localhost"), "");
    assert!(
        with("redis://localhost").ends_with("has no use: redis://localhost is not encrypted; write rediss for redis")
    );
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn templates_give_each_device_of_each_node_a_name_of_its_own() {
    let name =
        |template: &str, node, id| DeviceIdTemplate::parse(template).unwrap().names(node).name_of(id).to_string();
    assert_eq!(name("{node}-{id}", "host7", "cvd-1"), "host7-cvd-1");
    assert_eq!(name("{id}@{node}", "host7", "cvd-1"), "cvd-1@host7");
    assert_eq!(name("lab/{id}", "host7", "cvd-1"), "lab/cvd-1");
    assert_eq!(name("{id}", "host7", "{node}"), "{node}", "an id is no template");
    assert_eq!(name("{node}/{id}", "host7", "{id}{node}"), "host7/{id}{node}");
    for (template, what) in [
        ("", "must have {id} once"),
        ("{node}", "must have {id} once"),
        ("{id}{id}", "must have {id} once"),
        ("{node}-{node}-{id}", "must have {id} once"),
        ("{node}{id}", "has nothing between {node} and {id}"),
        ("{id}{node}", "has nothing between {node} and {id}"),
        ("{node}-{id}-{x}", "has a brace"),
        ("{{node}}-{id}", "has a brace"),
        ("{node}\n{id}", "has a control character"),
    ] {
        let told = error(|cluster| cluster.device_id_template = Some(template.into()));
        assert!(told.starts_with(&format!("Cluster.device_id_template: {template:?} {what}")), "{told}");
    }
}

#[test]
fn a_node_has_no_separator_of_the_template_in_its_name() {
    let with = |template: &str, node: &str| {
        error(|cluster| {
            cluster.device_id_template = Some(template.into());
            cluster.node = node.into();
        })
    };
    for (template, node) in [("{node}-{id}", "host-7"), ("{id}.{node}", "host.lab"), ("{node}--{id}", "a--b")] {
        assert!(with(template, node).starts_with(&format!("Cluster.node: {node:?} contains ")), "{template}");
    }
    for (template, node) in [("{node}:{id}", "host-7"), ("host-{node}.{id}", "host-7"), ("{id}-x", "host-7")] {
        assert_eq!(with(template, node), "", "{template}");
    }
}
