//! Errors of the engine: each names its kind, and what to change.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use cuttlefish_signaling::server::cluster::engine::{EngineError, Feed};
use cuttlefish_signaling::server::cluster::redis::Redis;

use super::server::{Server, free_port, runtime, settings, version};
use super::{connect, join, join_as};

const PASSWORD: &str = "pass-w0rd";

/// Connects and joins at a URL, and returns the error.
fn error(url: &str) -> EngineError {
    runtime().block_on(async {
        let error = match connect(url).await {
            Ok(connection) => connection.commands.execute(join_as("a")).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error}");
        error
    })
}

fn assert_error(url: &str, kind: &str, what: &str) {
    let error = error(url);
    assert_eq!(error.kind, kind, "{error}");
    assert!(error.what.contains(what), "{error}");
}

#[test]
fn password_is_refused_or_missing() {
    let server = Server::start(&["--requirepass", "right"]);
    let at = format!("127.0.0.1:{}", server.port);
    assert_error(&format!("redis://:{PASSWORD}@{at}"), "wrong_password", "change them in the URL");
    assert_error(&format!("redis://{at}"), "no_password", "redis://:PASSWORD@HOST");
    assert_error(&format!("redis://user:{PASSWORD}@{at}"), "wrong_password", &at);
    runtime().block_on(join(&format!("redis://:right@{at}"), "a"));
}

/// The line of the error gives the user all that it needs.
#[test]
fn permissions_that_lack_are_given_by_the_line_of_the_error() {
    let server = Server::start(&[]);
    let url = format!("redis://cuttlefish:{PASSWORD}@127.0.0.1:{}", server.port);
    let user = format!("ACL SETUSER cuttlefish reset on >{PASSWORD}");
    let has_channels = version() >= (6, 2);
    let all = if has_channels { "+@all allkeys allchannels" } else { "+@all allkeys" };
    let lacking = ["-evalsha", "-publish", "-subscribe", "-script", "-hset", "-time", "resetkeys"];
    for lacking in lacking.into_iter().chain(has_channels.then_some("resetchannels")) {
        server.run::<()>("FLUSHALL");
        server.run::<()>(&format!("{user} {all} {lacking}"));
        let error = error(&url);
        assert_eq!(error.kind, "no_permission", "{lacking}: {error}");
    }
    for lacking in ["-hscan", "-multi", "-exec"] {
        server.run::<()>(&format!("{user} {all} {lacking}"));
        let scan = async { join(&url, "a").await.commands.execute(super::Operation::Scan(0)).await.unwrap_err() };
        let error = runtime().block_on(scan);
        assert_eq!(error.kind, "no_permission", "{lacking}: {error}");
    }
    server.run::<()>(&user);
    let error = error(&url);
    let line = error.what.split_once("on the engine, run ").unwrap().1;
    assert!(line.starts_with("ACL SETUSER cuttlefish ~{cuttlefish:lab}:* &{cuttlefish:lab}:* +hello"), "{error}");
    assert!(error.what.contains("leave out the word with & before Redis 6.2"), "{error}");
    let line = if has_channels { line.to_owned() } else { line.replace(" &{cuttlefish:lab}:*", "") };
    server.run::<()>(&line);
    runtime().block_on(async {
        let node = join(&url, "a").await;
        for operation in super::differential::one_of_each() {
            node.commands.execute(operation.clone()).await.unwrap_or_else(|error| panic!("{operation:?}: {error}"));
        }
    });
}

#[test]
fn server_that_is_no_master() {
    let server = Server::start(&[]);
    server.run::<()>(&format!("REPLICAOF 127.0.0.1 {}", free_port()));
    assert_error(&server.url(), "read_only", "redis+sentinel://");
    server.run::<()>("CONFIG SET replica-serve-stale-data no");
    assert_error(&server.url(), "master_down", "start the master");
}

/// A server that becomes a replica while it is connected to refuses the next renewal.
#[test]
fn demoted_master_refuses_the_renewal() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let connection = join(&server.url(), "a").await;
        server.run::<()>(&format!("REPLICAOF 127.0.0.1 {}", free_port()));
        let renew = super::Operation::Renew(super::incarnation("a"));
        let refused = connection.commands.execute(renew).await.unwrap_err();
        // REPLICAOF also closes connections of subscribers, as a server of Redis 7 does.
        assert!(["read_only", "lost"].contains(&refused.kind), "{refused}");
    });
}

#[test]
fn memory_of_the_server_is_full() {
    let server = Server::start(&["--maxmemory", "100mb"]);
    runtime().block_on(async {
        let connection = join(&server.url(), "a").await;
        server.run::<()>("CONFIG SET maxmemory 1");
        let refused = connection.commands.execute(super::claim("a", "cvd-1", 1)).await.unwrap_err();
        assert_eq!(refused.kind, "full", "{refused}");
        assert!(refused.what.contains("raise its maxmemory"), "{refused}");
        server.run::<()>("CONFIG SET maxmemory 100mb");
        connection.commands.execute(super::claim("a", "cvd-1", 1)).await.unwrap();
    });
}

#[test]
fn too_few_replicas_for_a_write() {
    let server = Server::start(&["--min-replicas-to-write", "1"]);
    if version() < (7, 0) {
        // It lets a script write all the same.
        runtime().block_on(join(&server.url(), "a"));
    } else {
        assert_error(&server.url(), "no_replicas", "min-replicas-to-write");
    }
}

#[test]
fn registry_of_another_version_or_program() {
    let server = Server::start(&[]);
    server.run::<()>("HSET {cuttlefish:lab}:meta schema 2 epoch 1");
    assert_error(&server.url(), "schema", "version \"2\", and this node knows version 1");
    server.run::<()>("FLUSHALL");
    server.run::<()>("SET {cuttlefish:lab}:meta text");
    assert_error(&server.url(), "foreign_data", "delete the keys");
    for (field, value) in [("epoch", "text"), ("version", "text")] {
        server.run::<()>("FLUSHALL");
        server.run::<()>("HSET {cuttlefish:lab}:meta schema 1 epoch 1 version 1 born 1");
        server.run::<()>(&format!("HSET {{cuttlefish:lab}}:meta {field} {value}"));
        assert_error(&server.url(), "foreign_data", "another program");
    }
}

#[test]
fn server_that_cannot_be_reached() {
    let port = free_port();
    assert_error(&format!("redis://127.0.0.1:{port}"), "refused", &format!("no server listens on 127.0.0.1:{port}"));
    assert_error("redis://no-such-host.invalid", "no_address", "no-such-host.invalid");
}

/// Answers each connection with a text.
fn answering(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://:{PASSWORD}@{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream.write_all(text.as_bytes()).unwrap();
    });
    url
}

#[test]
fn server_that_is_too_old_or_loading_or_no_redis() {
    assert_error(&answering("-ERR unknown command `HELLO`, with args beginning with: `3`\r\n"), "too_old", "Redis 6");
    assert_error(
        &answering("-ERR unknown command `SCRIPT`, with args beginning with: `LOAD`\r\n"),
        "sentinel",
        "26379",
    );
    assert_error(&answering("-NOPROTO unsupported protocol version\r\n"), "too_old", "Redis 6");
    assert_error(&answering("-LOADING Redis is loading the dataset in memory\r\n"), "loading", "after a start");
    assert_error(&answering("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), "not_redis", "as Redis does");
    assert_error(&answering(""), "lost", "the connection is lost");
}

#[test]
fn urls_are_refused_without_their_passwords() {
    for (url, what) in [
        (format!("{PASSWORD}@host"), "redis://HOST:6379"),
        (format!("{PASSWORD}://host"), "the scheme is not"),
        (format!("redis://user:{PASSWORD}/x@host"), "write %2F for /"),
        (format!("redis://user:{PASSWORD}@host:port"), "HOST:PORT"),
        (format!("redis://user:{PASSWORD}@"), "HOST:PORT"),
        (format!("redis://user:{PASSWORD}@[::1"), "HOST:PORT"),
        (format!("redis://user:{PASSWORD}@one,two"), "more than one host"),
        (format!("redis://user:{PASSWORD}@host/name"), "the database is not a number"),
        (format!("redis+sentinel://user:{PASSWORD}@one,two"), "the name of the master"),
        ("redis://%ff@host".into(), "not UTF-8"),
    ] {
        let Err(error) = Redis::new(&settings(&url, super::Timing::default())) else { panic!("{url} is accepted") };
        assert_eq!(error.kind, "settings");
        assert!(error.what.contains(what) && !error.what.contains(PASSWORD), "{url}: {error}");
    }
    for url in ["redis://host", "redis://[::1]:1/3", "redis://u:p%40@h:1", "redis+sentinel://:p@a,b:1,[::1]/m"] {
        assert!(Redis::new(&settings(url, super::Timing::default())).is_ok(), "{url}");
    }
}

/// Two databases of one engine share channels, and their registries do not mix.
#[test]
fn databases_have_registries_of_their_own() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let (first, mut second) = (join(&server.url(), "a").await, join(&format!("{}/3", server.url()), "b").await);
        first.commands.execute(super::claim("a", "cvd-1", 1)).await.unwrap();
        second.commands.execute(super::claim("b", "cvd-1", 1)).await.unwrap();
        let mut versions = Vec::new();
        while let Ok(Feed::Delta(delta)) = second.feed.try_recv() {
            versions.push(delta.version.number);
        }
        assert_eq!(versions, [1, 2]);
    });
}
