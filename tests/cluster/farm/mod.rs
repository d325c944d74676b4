//! One engine and a farm beyond this machine: what it costs, and where it ends.

mod costs;
mod memory;
mod shape;
mod simulation;

use std::fmt::Write;
use std::time::Duration;

use self::costs::Costs;
use self::shape::{Load, Shape};
use self::simulation::Farm;

/// Bytes of a directory for each device, at most.
const MOST_BYTES: f64 = 300.0;

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn a_directory_has_at_most_300_bytes_for_each_device() {
    let bytes = memory::directory_bytes(200, 50_000);
    println!("a directory has {bytes:.0} bytes for each device");
    assert!(bytes <= MOST_BYTES, "{bytes:.0} bytes");
}

#[test]
fn directories_of_a_small_farm_hold_the_registry_after_churn_losses_and_a_failover() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let shape = Shape {
        nodes: 8,
        devices_per_node: 600,
        time: minutes(10),
        stay: minutes(10),
        loss: minutes(1),
        failover: minutes(5),
    };
    let farm = ran(shape, Costs::RECORDED);
    assert!(farm.has_recovered(), "the recovery is not over at the end");
    println!("{}", story(farm));
}

/// `make soak` runs it, with costs that it measures on a `redis-server`.
#[test]
#[ignore = "takes minutes and gigabytes"]
fn one_engine_and_200_nodes_with_5_000_devices_each() {
    let costs = Costs::measure(2, 34, 20_000);
    println!("CPU of the engine:\n{costs}");
    println!("a directory has {:.0} bytes for each device", memory::directory_bytes(200, 1_000_000));
    for nodes in [20, 50, 100, 200] {
        let shape = Shape {
            nodes,
            devices_per_node: 5_000,
            time: HOUR,
            stay: HOUR,
            loss: Duration::from_secs(60),
            failover: HOUR / 2,
        };
        println!("{}", story(ran(shape, costs)));
    }
}

/// An engine that has too much to do does not recover within the time: that is a result.
fn ran(shape: Shape, costs: Costs) -> Farm {
    let mut farm = Farm::new(shape, costs);
    farm.run();
    farm
}

fn story(mut farm: Farm) -> String {
    let shape = farm.shape;
    let mut story = format!("{} nodes with {} devices each\n", shape.nodes, shape.devices_per_node);
    write_load(&mut story, "before the failover", &farm.steady, shape.failover);
    farm.findable.sort_unstable();
    #[allow(clippy::cast_precision_loss, reason = "µs of an hour")]
    let at = |part: usize| farm.findable[(farm.findable.len() - 1) * part / 1_000] as f64 / 1e6;
    let _written = writeln!(
        story,
        "  findable after {:.4} s (median), {:.4} s (99 %), {:.1} s (longest)",
        at(500),
        at(990),
        at(1_000)
    );
    let [reclaimed, complete] = [farm.reclaimed, farm.complete]
        .map(|time| time.map_or("not within the time".to_owned(), |time| format!("after {time:.1?}")));
    let _written = writeln!(
        story,
        "  engine lost, back empty after 2 s: all reclaimed {reclaimed}, all directories complete {complete}"
    );
    if let Some(complete) = farm.complete {
        write_load(&mut story, "until then", &farm.recovery, complete);
    }
    story
}

#[allow(clippy::cast_precision_loss, reason = "less than a petabyte")]
fn write_load(story: &mut String, name: &str, load: &Load, time: Duration) {
    let seconds = time.as_secs_f64();
    let calls: u64 = load.calls.values().sum();
    let _written = writeln!(
        story,
        "  {name}: {:.0} calls/s, {:.1} % of one core, {:.1} changes/s to each node, {:.2} MB/s from the engine",
        calls as f64 / seconds,
        100.0 * load.cpu.as_secs_f64() / seconds,
        load.changes as f64 / seconds,
        load.bytes as f64 / 1e6 / seconds,
    );
    let kinds: Vec<_> =
        load.calls.iter().map(|(kind, calls)| format!("{kind} {:.1}/s", *calls as f64 / seconds)).collect();
    let _written = writeln!(story, "    {}", kinds.join(", "));
}
