//! Another user of the engine writes into the registry.

use cuttlefish_signaling::core::cluster::registry::{Claimed, Operation, Reply, Timing};
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::server::cluster::engine::{Connection, Engine as _, Feed};
use cuttlefish_signaling::server::cluster::redis::Redis;

use super::server::{SECRET, Server, runtime, settings};
use super::{claim, incarnation, join, join_as, read, registration, wanted};

const DEVICES: &str = "{cuttlefish:lab}:devices";

fn write(server: &Server, key: &str, field: &str, value: &str) {
    redis::cmd("HSET").arg(key).arg(field).arg(value).exec(&mut server.admin()).unwrap();
}

/// Returns what the feed has reported so far.
fn reported(connection: &mut Connection) -> Vec<String> {
    let mut texts = Vec::new();
    while let Ok(event) = connection.feed.try_recv() {
        if let Feed::Unsigned(text) = event {
            texts.push(text);
        }
    }
    texts
}

/// Claims an id, and returns its record as it stands in the engine.
async fn record(server: &Server, connection: &Connection, id: &str) -> String {
    connection.commands.execute(claim("a", id, 1)).await.unwrap();
    redis::cmd("HGET").arg(DEVICES).arg(id).query(&mut server.admin()).unwrap()
}

#[test]
fn a_forged_record_is_ignored_and_reported() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let mut connection = join(&server.url(), "a").await;
        let good = record(&server, &connection, "cvd-1").await;
        // The record of another device, of another registration, with other details, without a signature, and no record.
        let others = [
            ("cvd-2", good.clone()),
            ("cvd-3", good.replacen("/1 ", "/2 ", 1)),
            ("cvd-4", format!("{good} ")),
            ("cvd-5", "evil.0000000000000001/1 1 - {}".into()),
            ("cvd-6", "anything".into()),
        ];
        for (id, record) in others {
            write(&server, DEVICES, id, &record);
            assert_eq!(connection.commands.execute(read(id)).await.unwrap().reply, Reply::Entry(None), "{id}");
            assert_eq!(reported(&mut connection), [format!("the record of device {id}")]);
        }
        let reply = connection.commands.execute(Operation::Scan(0)).await.unwrap().reply;
        let Reply::Page { entries, mut unsigned, .. } = reply else { panic!("{reply:?}") };
        assert_eq!(entries.len(), 1, "{entries:?}");
        unsigned.sort();
        assert_eq!(unsigned, ["cvd-2", "cvd-3", "cvd-4", "cvd-5", "cvd-6"].map(DeviceId::new));
        let texts = reported(&mut connection);
        assert!(texts[0].ends_with(" and 4 others"), "{texts:?}");
    });
}

#[test]
fn a_forged_record_does_not_keep_an_id() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let mut connection = join(&server.url(), "a").await;
        for record in ["evil.0000000000000001/1 1 - {}", "anything", "", "a.7/1 1", "\n"] {
            write(&server, DEVICES, "cvd-1", record);
            let claimed = connection.commands.execute(claim("a", "cvd-1", 1)).await.unwrap().reply;
            assert_eq!(claimed, Reply::Claimed(Claimed::Granted), "{record:?}");
            write(&server, DEVICES, "cvd-1", record);
            let reclaim = Operation::Reclaim {
                node: incarnation("a"),
                wanted: vec![wanted("a", "cvd-0", 1), wanted("a", "cvd-1", 1)],
            };
            let claimed = connection.commands.execute(reclaim).await.unwrap().reply;
            assert_eq!(claimed, Reply::Reclaimed(vec![Claimed::Granted, Claimed::Granted]), "{record:?}");
            let Reply::Entry(Some(entry)) = connection.commands.execute(read("cvd-1")).await.unwrap().reply else {
                panic!()
            };
            assert_eq!(entry.registration, registration("a", 1));
        }
        assert_eq!(reported(&mut connection)[0], "the record of device cvd-1");
    });
}

#[test]
fn a_forged_announcement_stands_against_no_claim() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let mut connection = join(&server.url(), "a").await;
        redis::cmd("ZADD")
            .arg("{cuttlefish:lab}:nodes")
            .arg("inf")
            .arg("evil.0000000000000001")
            .exec(&mut server.admin())
            .unwrap();
        for (number, record) in
            ["evil.0000000000000001 - {}", "anything", "", "evil.0000000000000001 x y", "x y z"].iter().enumerate()
        {
            let id = format!("cvd-{number}");
            write(&server, "{cuttlefish:lab}:preregistrations", &id, record);
            let claimed = connection.commands.execute(claim("a", &id, 1)).await.unwrap().reply;
            assert_eq!(claimed, Reply::Claimed(Claimed::Granted), "{record:?}");
        }
        assert_eq!(
            reported(&mut connection),
            ["cvd-0", "cvd-3"].map(|id| format!("the record of announced device {id}"))
        );
        let left: usize =
            redis::cmd("HLEN").arg("{cuttlefish:lab}:preregistrations").query(&mut server.admin()).unwrap();
        assert_eq!(left, 0);
    });
}

#[test]
fn a_forged_node_does_not_keep_a_name_and_is_not_dialled() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let mut b = join(&server.url(), "b").await;
        for node in ["a.0000000000000001", "evil.0000000000000001"] {
            redis::cmd("ZADD").arg("{cuttlefish:lab}:nodes").arg("inf").arg(node).exec(&mut server.admin()).unwrap();
            write(&server, "{cuttlefish:lab}:node_records", node, "- {\"address\":\"192.0.2.1:1\"}");
        }
        let Reply::Nodes(nodes) = b.commands.execute(Operation::Nodes).await.unwrap().reply else { panic!() };
        assert_eq!(nodes.iter().map(|node| node.incarnation.clone()).collect::<Vec<_>>(), [incarnation("b")]);
        assert_eq!(reported(&mut b), ["the record of node a.0000000000000001 and 1 others"]);
        let Reply::Joined { nodes, .. } = b.commands.execute(join_as("a")).await.unwrap().reply else {
            panic!("name held")
        };
        assert_eq!(nodes.len(), 2, "{nodes:?}");
    });
}

#[test]
fn a_forged_change_is_reported_and_not_applied() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let mut connection = join(&server.url(), "a").await;
        while connection.feed.try_recv().is_ok() {}
        let record = "- {}";
        let forged = [
            format!("9 1a 0 claimed 5:cvd-124:evil.0000000000000001/1{}:{record}", record.len()),
            format!("9 1a 0 joined 21:evil.0000000000000001{}:{record}", record.len()),
            "9 1a 0 left 3:abc".into(),
            "9 1a 0 unknown ".into(),
            "99999999999999999999 1a 0 released ".into(),
            "9 1a 12345678901234567 released ".into(),
            "9 no 0 released ".into(),
            "9 released ".into(),
            "9 1a 0 released 99999999999999999999:a".into(),
            "9 1a 0 released 5:abc".into(),
            String::new(),
        ];
        for text in forged {
            redis::cmd("PUBLISH").arg("{cuttlefish:lab}:feed").arg(&text).exec(&mut server.admin()).unwrap();
            let event = connection.feed.recv().await;
            assert_eq!(event, Some(Feed::Unsigned("a change on the channel {cuttlefish:lab}:feed".into())), "{text}");
        }
    });
}

#[test]
fn each_secret_verifies_and_the_first_signs() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let connect = async |secrets: &[&str]| {
            let mut settings =
                settings(&server.url(), Timing { settle: std::time::Duration::ZERO, ..Timing::default() });
            settings.secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
            Redis::new(&settings).unwrap().connect().await.unwrap()
        };
        let new = "another secret of more than thirty-two bytes";
        let (old, both, next) = (connect(&[SECRET]).await, connect(&[new, SECRET]).await, connect(&[new]).await);
        old.commands.execute(join_as("a")).await.unwrap();
        both.commands.execute(join_as("b")).await.unwrap();
        old.commands.execute(claim("a", "old", 1)).await.unwrap();
        both.commands.execute(claim("b", "new", 1)).await.unwrap();
        for (connection, reads) in [(&old, [true, false]), (&both, [true, true]), (&next, [false, true])] {
            for (id, is_read) in ["old", "new"].into_iter().zip(reads) {
                let Reply::Entry(entry) = connection.commands.execute(read(id)).await.unwrap().reply else { panic!() };
                assert_eq!(entry.is_some(), is_read, "{id}");
            }
        }
    });
}

/// A whole rotation of the secret: the nodes take each step one after the other, and read each other's records all the time.
#[test]
fn secret_is_replaced_without_an_outage() {
    const NEW: &str = "another secret of more than thirty-two bytes";
    let server = Server::start(&[]);
    runtime().block_on(async {
        let engines = ["a", "b"].map(|_| Redis::new(&settings(&server.url(), Timing::default())).unwrap());
        let connections = [engines[0].connect().await.unwrap(), engines[1].connect().await.unwrap()];
        let ids = ["a", "b"];
        for (node, connection) in ids.iter().zip(&connections) {
            connection.commands.execute(join_as(node)).await.unwrap();
            let wanted = vec![wanted(node, node, 1)];
            connection.commands.execute(Operation::Reclaim { node: incarnation(node), wanted }).await.unwrap();
        }
        let servers = r#"[{"urls":"turn:turn.example","credential":"pass-w0rd"}]"#;
        let set = Operation::SetIce { servers: Some(servers.into()), absent: false };
        connections[0].commands.execute(set).await.unwrap();
        for step in [&[SECRET, NEW][..], &[NEW, SECRET], &[NEW]] {
            let step: Vec<_> = step.iter().map(|secret| (*secret).to_owned()).collect();
            for (at, node) in ids.iter().enumerate() {
                engines[at].set_secrets(&step);
                let commands = &connections[at].commands;
                commands.execute(join_as(node)).await.unwrap();
                let reclaim = Operation::Reclaim { node: incarnation(node), wanted: vec![wanted(node, node, 1)] };
                let granted = Reply::Reclaimed(vec![Claimed::Granted]);
                assert_eq!(commands.execute(reclaim).await.unwrap().reply, granted);
                assert_eq!(commands.execute(Operation::SealIce).await.unwrap().reply, Reply::Done);
                for connection in &connections {
                    let ask = async |operation| connection.commands.execute(operation).await.unwrap().reply;
                    for id in ids {
                        assert!(matches!(ask(read(id)).await, Reply::Entry(Some(_))), "{id} after {step:?} on {node}");
                    }
                    let Reply::Nodes(nodes) = ask(Operation::Nodes).await else { panic!() };
                    assert_eq!(nodes.len(), 2, "after {step:?} on {node}");
                    assert_eq!(ask(Operation::ReadIce).await, Reply::Ice(Some(servers.into())), "{step:?} on {node}");
                }
            }
        }
        for mut connection in connections {
            assert_eq!(reported(&mut connection), [""; 0]);
        }
        // Nothing is left that the old secret has made.
        let old = Redis::new(&settings(&server.url(), Timing::default())).unwrap().connect().await.unwrap();
        assert_eq!(old.commands.execute(read("a")).await.unwrap().reply, Reply::Entry(None));
        assert_eq!(old.commands.execute(Operation::Nodes).await.unwrap().reply, Reply::Nodes(Vec::new()));
        assert_eq!(old.commands.execute(Operation::ReadIce).await.unwrap().reply, Reply::Ice(None));
    });
}

#[test]
fn times_that_another_user_has_written_are_limited() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let connection = join(&server.url(), "a").await;
        connection.commands.execute(claim("a", "cvd-1", 1)).await.unwrap();
        redis::cmd("ZADD")
            .arg("{cuttlefish:lab}:nodes")
            .arg("inf")
            .arg("a.0000000000000007")
            .exec(&mut server.admin())
            .unwrap();
        for born in ["-1e300", "1e300", "text"] {
            write(&server, "{cuttlefish:lab}:meta", "born", born);
            let outcome = connection.commands.execute(claim("a", "cvd-1", 2)).await.unwrap().reply;
            let Reply::Claimed(Claimed::Held { lease, .. }) = outcome else { panic!("{outcome:?}") };
            assert_eq!(lease.as_secs(), 86_400);
            let free = connection.commands.execute(claim("a", &format!("born {born}"), 2)).await.unwrap().reply;
            assert_eq!(free, Reply::Claimed(Claimed::Granted));
            assert!(matches!(connection.commands.execute(join_as("b")).await.unwrap().reply, Reply::Joined { .. }));
        }
    });
}

#[test]
fn shared_ice_servers_are_sealed() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let mut connection = join(&server.url(), "a").await;
        let servers = r#"[{"urls":"turn:turn.example","credential":"pass-w0rd"}]"#;
        let set = Operation::SetIce { servers: Some(servers.into()), absent: false };
        connection.commands.execute(set).await.unwrap();
        let sealed: String = server.run("GET {cuttlefish:lab}:ice");
        assert!(!sealed.contains("pass-w0rd") && !sealed.contains("turn"), "{sealed}");
        assert_eq!(
            connection.commands.execute(Operation::ReadIce).await.unwrap().reply,
            Reply::Ice(Some(servers.into()))
        );
        // Another text, the text of another service, and an open text.
        let other = Server::start(&[]);
        let mut of_other = settings(&other.url(), Timing::default());
        of_other.name = "other".into();
        let elsewhere = Redis::new(&of_other).unwrap().connect().await.unwrap();
        let set = Operation::SetIce { servers: Some(servers.into()), absent: false };
        elsewhere.commands.execute(set).await.unwrap();
        let foreign: String = other.run("GET {cuttlefish:other}:ice");
        for forged in [
            sealed.replacen(&sealed[20..21], if sealed[20..].starts_with('A') { "B" } else { "A" }, 1),
            foreign,
            "- []".into(),
        ] {
            server.run::<()>(&format!("SET {{cuttlefish:lab}}:ice {}", forged.replace(' ', "")));
            assert_eq!(
                connection.commands.execute(Operation::ReadIce).await.unwrap().reply,
                Reply::Ice(None),
                "{forged}"
            );
            assert_eq!(reported(&mut connection), ["the record of the ICE servers of the cluster"]);
        }
    });
}
