//! A master with two replicas, watched by three Sentinels.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use cuttlefish_signaling::core::cluster::registry::{Operation, Reply};
use cuttlefish_signaling::server::cluster::engine::{Connection, EngineError};

use super::server::{Sentinel, Server, runtime, version};
use super::{claim, connect, incarnation, join_as, read};

struct Trio {
    servers: Vec<Server>,
    sentinels: Vec<Sentinel>,
}

impl Trio {
    fn start() -> Self {
        let master = Server::start(&["--repl-diskless-sync-delay", "0"]);
        let of_master = ["--replicaof", "127.0.0.1", &master.port.to_string()].map(str::to_owned);
        let of_master: Vec<_> = of_master.iter().map(String::as_str).collect();
        let servers = vec![master, Server::start(&of_master), Server::start(&of_master)];
        servers.iter().skip(1).for_each(|replica| replica.until("INFO replication", "master_link_status:up"));
        let sentinels: Vec<_> = (0..3).map(|_| Sentinel::start(servers[0].port)).collect();
        for sentinel in &sentinels {
            sentinel.until("SENTINEL MASTER lab", "num-slaves 2");
            sentinel.until("SENTINEL MASTER lab", "num-other-sentinels 2");
        }
        Self { servers, sentinels }
    }

    fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        format!("redis+sentinel://{}/lab", hosts.join(","))
    }
}

async fn join(url: &str) -> Result<(Connection, Reply), EngineError> {
    let connection = connect(url).await?;
    let reply = connection.commands.execute(join_as("a")).await?.reply;
    Ok((connection, reply))
}

#[test]
fn failover_leads_to_the_new_master() {
    let mut trio = Trio::start();
    let url = trio.url();
    runtime().block_on(async {
        let (mut connection, joined) = join(&url).await.unwrap();
        let Reply::Joined { epoch: first, .. } = joined else { panic!("{joined:?}") };
        connection.commands.execute(claim("a", "cvd-1", 1)).await.unwrap();
        // Both replicas have the claim.
        let copied = trio.servers[0].run::<u32>("WAIT 2 0");
        assert_eq!(copied, 2);
        trio.servers[0].kill();
        while connection.feed.recv().await.is_some() {}
        // One Sentinel less: the others are asked.
        trio.sentinels.remove(0);
        let mut refused = Vec::new();
        let (connection, joined) = loop {
            match join(&url).await {
                Ok(made) => break made,
                Err(error) => refused.push(error.kind),
            }
            // The address of the old master refuses, until the failover.
            std::thread::yield_now();
        };
        let known = ["refused", "lost", "read_only", "no_replicas"];
        assert!(refused.iter().all(|kind| known.contains(kind)), "{refused:?}");
        let Reply::Joined { epoch, .. } = joined else { panic!("{joined:?}") };
        assert_eq!(epoch, first, "the registry was copied");
        let Reply::Entry(Some(_)) = connection.commands.execute(read("cvd-1")).await.unwrap().reply else {
            panic!("lost")
        };
        let renewed = connection.commands.execute(Operation::Renew(incarnation("a"))).await.unwrap().reply;
        assert!(matches!(renewed, Reply::Renewed { .. }));
    });
}

/// A master that is demoted may take writes for seconds. For the nodes that it has, it would be an engine of its own.
#[test]
fn master_that_the_sentinels_no_longer_name_is_left() {
    let (old, new) = (Server::start(&[]), Server::start(&[]));
    let sentinel = Sentinel::start(old.port);
    let url = format!("redis+sentinel://127.0.0.1:{}/lab", sentinel.port);
    runtime().block_on(async {
        let (connection, _) = join(&url).await.unwrap();
        let renew = || connection.commands.execute(Operation::Renew(incarnation("a")));
        for _ in 0..100 {
            renew().await.unwrap();
        }
        sentinel.until("SENTINEL REMOVE lab", "OK");
        // One that does not know the name says nothing.
        for _ in 0..100 {
            renew().await.unwrap();
        }
        sentinel.until(&format!("SENTINEL MONITOR lab 127.0.0.1 {} 2", new.port), "OK");
        let demoted = loop {
            if let Err(error) = renew().await {
                break error;
            }
        };
        assert_eq!(demoted.kind, "demoted", "{demoted}");
        let (from, to) = (format!("127.0.0.1:{} is no longer", old.port), format!("127.0.0.1:{}", new.port));
        assert!(demoted.what.contains(&from) && demoted.what.contains(&to), "{demoted}");
        join(&url).await.unwrap();
        assert_eq!(new.run::<u32>("HLEN {cuttlefish:lab}:node_records"), 1);
    });
}

/// The server is named by its address, and by its name.
#[test]
fn master_that_has_another_name_is_the_same_one() {
    if version() < (6, 2) {
        return; // Its Sentinels have no host names.
    }
    let server = Server::start(&[]);
    let sentinel = Sentinel::start_with(server.port, "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes");
    let url = format!("redis+sentinel://127.0.0.1:{}/lab", sentinel.port);
    runtime().block_on(async {
        let (connection, _) = join(&url).await.unwrap();
        sentinel.until("SENTINEL REMOVE lab", "OK");
        sentinel.until(&format!("SENTINEL MONITOR lab localhost {} 2", server.port), "OK");
        for _ in 0..5_000 {
            connection.commands.execute(Operation::Renew(incarnation("a"))).await.unwrap();
        }
    });
}

#[test]
fn sentinels_that_do_not_know_the_master_or_are_not_there() {
    let server = Server::start(&[]);
    let sentinel = Sentinel::start(server.port);
    runtime().block_on(async {
        let error = async |url: String| match connect(&url).await {
            Ok(_) => panic!("{url} leads to a master"),
            Err(error) => error,
        };
        let unknown = error(format!("redis+sentinel://127.0.0.1:{}/other", sentinel.port)).await;
        assert_eq!(unknown.kind, "no_master", "{unknown}");
        assert!(unknown.what.contains("`sentinel monitor`"), "{unknown}");
        let absent = error(format!("redis+sentinel://127.0.0.1:{}/lab", super::server::free_port())).await;
        assert_eq!(absent.kind, "refused", "{absent}");
        let no_sentinel = error(format!("redis+sentinel://127.0.0.1:{}/lab", server.port)).await;
        assert_eq!(no_sentinel.kind, "no_sentinel", "{no_sentinel}");
        // A Sentinel as the engine.
        let engine = error(format!("redis://127.0.0.1:{}", sentinel.port)).await;
        assert_eq!(engine.kind, "sentinel", "{engine}");
        assert!(engine.what.contains("redis+sentinel://"), "{engine}");
    });
}

/// A master with a password, and a Sentinel with another one, or with users of its own.
#[test]
fn sentinels_have_a_login_of_their_own() {
    if version() < (6, 2) {
        return; // Its Sentinels have no users.
    }
    let server = Server::start(&["--requirepass", "of-the-engine"]);
    let lines = "requirepass of-sentinels\nsentinel auth-pass lab of-the-engine\n\
                 user reader on >read-er -@all +sentinel|get-master-addr-by-name\nuser nobody on >no-body -@all";
    let sentinel = Sentinel::start_with(server.port, lines);
    let url = |login: &str, query: &str| format!("redis+sentinel://{login}127.0.0.1:{}/lab{query}", sentinel.port);
    let named = format!("the Sentinel 127.0.0.1:{}", sentinel.port);
    runtime().block_on(async {
        for query in ["sentinel_password=of-sentinels", "sentinel_username=reader&sentinel_password=read%2Der"] {
            join(&url(":of-the-engine@", &format!("?{query}"))).await.unwrap();
        }
        for (login, query, kind, what) in [
            ("", "", "no_sentinel_password", "?sentinel_password=PASSWORD"),
            (":of-the-engine@", "", "wrong_sentinel_password", "?sentinel_password=PASSWORD"),
            (":of-the-engine@", "?sentinel_password=of-nobody", "wrong_sentinel_password", named.as_str()),
            ("", "?sentinel_username=nobody&sentinel_password=no-body", "no_sentinel_permission", "ACL SETUSER"),
            ("", "?sentinel_password=of-sentinels", "no_password", "the engine asks for a password"),
        ] {
            let Err(error) = connect(&url(login, query)).await else { panic!("{login}{query} is a login") };
            assert_eq!(error.kind, kind, "{login}{query}: {error}");
            assert!(error.what.contains(what), "{error}");
            assert_eq!(error.what.contains(&named), kind != "no_password", "{error}");
            for password in ["of-the-engine", "of-sentinels", "of-nobody", "no-body"] {
                assert!(!error.what.contains(password), "{error}");
            }
        }
    });
}

#[test]
fn sentinel_that_asks_for_a_password_is_told_that_of_the_engine() {
    let server = Server::start(&["--requirepass", "of-both"]);
    let sentinel = Sentinel::start_with(server.port, "requirepass of-both\nsentinel auth-pass lab of-both");
    runtime().block_on(join(&format!("redis+sentinel://:of-both@127.0.0.1:{}/lab", sentinel.port))).unwrap();
}

#[test]
fn sentinel_without_a_password_takes_any() {
    let server = Server::start(&[]);
    let sentinel = Sentinel::start(server.port);
    let url = format!("redis+sentinel://127.0.0.1:{}/lab?sentinel_password=x", sentinel.port);
    runtime().block_on(join(&url)).unwrap();
}

/// A Sentinel of Redis 6.0, which has no users: AUTH has one argument there. It serves one connection.
fn sentinel_without_users(master: u16, password: Option<&'static str>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut is_known = password.is_none();
        let mut asked = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut asked) {
            let words: Vec<_> =
                std::str::from_utf8(&asked[..length]).unwrap().split("\r\n").skip(2).step_by(2).collect();
            answer(&mut stream, &words, password, &mut is_known, master);
        }
    });
    port
}

fn answer(stream: &mut TcpStream, words: &[&str], password: Option<&str>, is_known: &mut bool, master: u16) {
    let master = master.to_string();
    let address = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{master}\r\n", master.len());
    let text = match words {
        ["AUTH", _] if password.is_none() => {
            "-ERR AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?\r\n"
        }
        ["AUTH", given] if password == Some(given) => {
            *is_known = true;
            "+OK\r\n"
        }
        ["AUTH", _] => "-WRONGPASS invalid username-password pair\r\n",
        ["AUTH", ..] => "-ERR wrong number of arguments for 'auth' command\r\n",
        _ if !*is_known => "-NOAUTH Authentication required.\r\n",
        _ => &address,
    };
    stream.write_all(text.as_bytes()).unwrap();
}

#[test]
fn sentinel_before_redis_6_2_takes_a_password_without_a_user() {
    let server = Server::start(&["--requirepass", "of-both"]);
    let url = |password, query: &str| {
        format!("redis+sentinel://:of-both@127.0.0.1:{}/lab{query}", sentinel_without_users(server.port, password))
    };
    runtime().block_on(async {
        for (password, query) in [
            (Some("of-both"), ""),
            (Some("of-both"), "?sentinel_password=of-both"),
            (None, ""),
            (None, "?sentinel_password=x"),
        ] {
            join(&url(password, query)).await.unwrap();
        }
        for (query, kind) in [
            ("?sentinel_password=x", "wrong_sentinel_password"),
            ("?sentinel_username=reader&sentinel_password=of-both", "no_sentinel_users"),
        ] {
            let Err(error) = connect(&url(Some("of-both"), query)).await else { panic!("{query} is a login") };
            assert_eq!(error.kind, kind, "{error}");
            assert!(!error.what.contains("of-both"), "{error}");
        }
    });
}
