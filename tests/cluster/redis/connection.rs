//! Connections to a server, and their loss.

use std::task::{Context, Waker};

use cuttlefish_signaling::core::cluster::registry::{Change, Claimed, Operation, Reply};
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::server::cluster::engine::{Connection, Feed};
use rustix::process::{Pid, Signal, kill_process};

use super::server::{Server, command, runtime};
use super::{claim, connect, incarnation, join, join_as, read, registration};

/// Waits for the end of a feed, and returns what it had.
async fn until_closed(connection: &mut Connection) -> Vec<Feed> {
    let mut events = Vec::new();
    while let Some(event) = connection.feed.recv().await {
        events.push(event);
    }
    events
}

#[test]
fn a_change_reaches_all_connections() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let (mut a, mut b) = (join(&server.url(), "a").await, join(&server.url(), "b").await);
        a.commands.execute(claim("a", "cvd-1", 1)).await.unwrap();
        for connection in [&mut a, &mut b] {
            loop {
                let Some(Feed::Delta(delta)) = connection.feed.recv().await else { panic!("no change") };
                let Change::Claimed(claimed) = delta.change else { continue };
                assert_eq!(claimed, [(DeviceId::new("cvd-1"), registration("a", 1), "{}".into())]);
                break;
            }
        }
    });
}

/// Returns the commands that scripts have called since `CONFIG RESETSTAT`, each with the number of calls.
fn called_by_scripts(server: &Server) -> Vec<String> {
    let stats: String = server.run("INFO commandstats");
    let line = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let (calls, _) = rest.split_once(',')?;
        // The rest are commands of this test and of its connections.
        let by_script = !["evalsha", "info", "hello", "client", "config"].iter().any(|own| name.starts_with(own));
        by_script.then(|| format!("{name} {calls}"))
    };
    let mut called: Vec<_> = stats.lines().filter_map(line).collect();
    called.sort();
    called
}

#[test]
fn a_device_that_comes_and_goes_costs_the_engine_two_short_scripts() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let connection = join(&server.url(), "a").await;
        server.run::<()>("CONFIG RESETSTAT");
        connection.commands.execute(claim("a", "cvd-1", 1)).await.unwrap();
        let claimed = ["hget 2", "hmget 1", "hset 2", "publish 1", "time 1", "zadd 1", "zscore 1"];
        assert_eq!(called_by_scripts(&server), claimed);
        server.run::<()>("CONFIG RESETSTAT");
        let release = vec![(DeviceId::new("cvd-1"), registration("a", 1))];
        connection.commands.execute(Operation::Release(release)).await.unwrap();
        assert_eq!(called_by_scripts(&server), ["hdel 1", "hget 2", "hset 1", "publish 1", "zrem 1"]);
    });
}

#[test]
fn a_registry_without_an_epoch_grants_nothing() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let connection = join(&server.url(), "a").await;
        server.run::<()>("HDEL {cuttlefish:lab}:meta epoch");
        assert_eq!(connection.commands.execute(claim("a", "cvd-1", 1)).await.unwrap().reply, Reply::NotAMember);
    });
}

#[test]
fn a_release_leaves_records_that_no_node_has_written() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let connection = join(&server.url(), "a").await;
        let own = registration("a", 1);
        let records = [String::new(), "x".into(), format!("{own}"), format!("{own} "), format!("{own} - {{}}")];
        let records =
            records.into_iter().chain([format!("{own}1 5 - {{}}"), format!("{}5 - {{}}", registration("b", 1))]);
        for record in records {
            let devices = "{cuttlefish:lab}:devices";
            redis::cmd("HSET").arg(devices).arg("cvd-1").arg(&record).exec(&mut server.admin()).unwrap();
            let release = vec![(DeviceId::new("cvd-1"), own.clone())];
            connection.commands.execute(Operation::Release(release)).await.unwrap();
            let left: Option<String> = redis::cmd("HGET").arg(devices).arg("cvd-1").query(&mut server.admin()).unwrap();
            assert_eq!(left, Some(record));
        }
    });
}

#[test]
fn operations_are_executed_in_the_order_of_the_calls() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let connection = join(&server.url(), "a").await;
        for round in 0..100 {
            let first = connection.commands.execute(claim("a", "cvd-1", round));
            let release = vec![(DeviceId::new("cvd-1"), registration("a", round))];
            let second = connection.commands.execute(Operation::Release(release));
            let third = connection.commands.execute(read("cvd-1"));
            // Answers may be awaited in any order.
            assert_eq!(third.await.unwrap().reply, Reply::Entry(None), "round {round}");
            assert_eq!(second.await.unwrap().reply, Reply::Done);
            assert_eq!(first.await.unwrap().reply, Reply::Claimed(Claimed::Granted));
        }
    });
}

#[test]
fn more_operations_than_the_queue_holds_keep_their_order() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let connection = join(&server.url(), "a").await;
        let claims: Vec<_> =
            (0..10_000).map(|number| connection.commands.execute(claim("a", "cvd-1", number))).collect();
        let mut granted = Vec::new();
        for (number, answer) in claims.into_iter().enumerate() {
            if answer.await.unwrap().reply == Reply::Claimed(Claimed::Granted) {
                granted.push(number);
            }
        }
        assert_eq!(granted, [0]);
    });
}

#[test]
fn a_server_that_restarts_empty_is_another_registry() {
    let mut server = Server::start(&[]);
    runtime().block_on(async {
        let mut connection = connect(&server.url()).await.unwrap();
        let Reply::Joined { epoch: first, .. } = connection.commands.execute(join_as("a")).await.unwrap().reply else {
            panic!()
        };
        server.restart();
        until_closed(&mut connection).await;
        let lost = connection.commands.execute(Operation::Renew(incarnation("a"))).await.unwrap_err();
        assert_eq!(lost.kind, "lost", "{lost}");
        let connection = connect(&server.url()).await.unwrap();
        let renewed = connection.commands.execute(Operation::Renew(incarnation("a"))).await.unwrap().reply;
        assert_eq!(renewed, Reply::NotAMember);
        // An empty page would say that there is no device.
        assert_eq!(connection.commands.execute(Operation::Scan(0)).await.unwrap().reply, Reply::NotAMember);
        let Reply::Joined { epoch, version, .. } = connection.commands.execute(join_as("a")).await.unwrap().reply
        else {
            panic!()
        };
        assert_ne!(epoch, first);
        assert_eq!(version.number, 1);
    });
}

#[test]
fn a_connection_that_the_server_closes_ends_its_feed() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let mut connection = join(&server.url(), "a").await;
        assert_eq!(server.run::<u32>("CLIENT KILL TYPE pubsub"), 1);
        until_closed(&mut connection).await;
        assert!(connection.commands.execute(read("cvd-1")).await.is_err());
    });
}

#[test]
fn dropping_a_connection_closes_it() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let connection = join(&server.url(), "a").await;
        let unanswered = connection.commands.execute(read("cvd-1"));
        drop(connection);
        drop(unanswered);
        // The task that reads and writes is aborted when the runtime comes to it.
        while server.run::<String>("CLIENT LIST").lines().count() > 1 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_stopped_server_answers_when_it_goes_on() {
    let server = Server::start(&[]);
    let pid = Pid::from_raw(server.pid().cast_signed()).unwrap();
    runtime().block_on(async {
        let connection = join(&server.url(), "a").await;
        kill_process(pid, Signal::STOP).unwrap();
        let mut answer = connection.commands.execute(claim("a", "cvd-1", 1));
        for _ in 0..100 {
            assert!(answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            tokio::task::yield_now().await;
        }
        kill_process(pid, Signal::CONT).unwrap();
        assert_eq!(answer.await.unwrap().reply, Reply::Claimed(Claimed::Granted));
    });
}

#[test]
fn a_server_that_sleeps_delays_and_loses_nothing() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let connection = join(&server.url(), "a").await;
        let mut admin = server.admin();
        let asleep = std::thread::spawn(move || command("DEBUG SLEEP 0.3").exec(&mut admin).unwrap());
        let claims: Vec<_> =
            (0..200).map(|number| connection.commands.execute(claim("a", &format!("cvd-{number}"), number))).collect();
        for answer in claims {
            assert_eq!(answer.await.unwrap().reply, Reply::Claimed(Claimed::Granted));
        }
        asleep.join().unwrap();
    });
}

#[test]
fn a_queue_that_was_full_tells_of_the_gap() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let (mut slow, fast) = (join(&server.url(), "a").await, join(&server.url(), "b").await);
        let changes = 5_000;
        for number in 0..changes {
            fast.commands.execute(claim("b", "cvd-1", number)).await.unwrap();
            let release = vec![(DeviceId::new("cvd-1"), registration("b", number))];
            fast.commands.execute(Operation::Release(release)).await.unwrap();
        }
        // Its answer follows all changes.
        slow.commands.execute(read("cvd-1")).await.unwrap();
        let mut events = Vec::new();
        while let Ok(event) = slow.feed.try_recv() {
            events.push(event);
        }
        assert_eq!(events.pop(), Some(Feed::Gap));
        assert!(events.iter().all(|event| matches!(event, Feed::Delta(_))));
        assert!(events.len() > 4_000, "{} events", events.len());

        fast.commands.execute(claim("b", "cvd-2", 1)).await.unwrap();
        assert!(matches!(slow.feed.recv().await, Some(Feed::Delta(_))), "the feed goes on");
    });
}

#[test]
fn a_message_that_does_not_end_closes_the_connection() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let mut connection = join(&server.url(), "a").await;
        let long = vec![b'x'; 20 * 1024 * 1024];
        redis::cmd("PUBLISH").arg("{cuttlefish:lab}:feed").arg(long).exec(&mut server.admin()).unwrap();
        let events = until_closed(&mut connection).await;
        assert!(events.iter().all(|event| matches!(event, Feed::Delta(_))), "{events:?}");
    });
}

#[test]
fn an_engine_that_has_forgotten_its_scripts_is_connected_to_anew() {
    let server = Server::start(&[]);
    runtime().block_on(async {
        let connection = join(&server.url(), "a").await;
        server.run::<()>("SCRIPT FLUSH");
        let error = connection.commands.execute(Operation::Nodes).await.unwrap_err();
        assert_eq!(error.kind, "scripts_lost", "{error}");
        let connection = connect(&server.url()).await.unwrap();
        assert!(connection.commands.execute(Operation::Nodes).await.is_ok());
    });
}
