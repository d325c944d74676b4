//! Random schedules of a world, and what holds after each.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use cuttlefish_signaling::protocol::DeviceId;

use crate::engine::Engine;
use crate::node::SessionState;
use crate::world::World;

/// Nodes of each world.
const NODES: usize = 3;
/// Ids of devices, fewer than devices, so that they meet.
const IDS: u64 = 6;
/// Acts of each schedule.
const ACTS: usize = 40;

/// Seeds that have failed, one a line, each with the fault that it has shown. They run first.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/seeds.txt");

/// `CLUSTER_SCHEDULES` is the number of schedules, `CLUSTER_SEED` the first seed.
#[test]
fn what_holds_after_any_schedule() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse::<u64>().unwrap());
    let (first, count) = (number("CLUSTER_SEED", 0), number("CLUSTER_SCHEDULES", 300));
    kept_seeds().into_iter().for_each(run);
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let runs = || {
            // A seed that fails ends the test: the other threads stop as well.
            let seeds = std::iter::from_fn(|| Some(next.fetch_add(1, Relaxed)).filter(|seed| *seed < first + count));
            for seed in seeds {
                run_noted(seed, || next.store(u64::MAX / 2, Relaxed));
            }
        };
        (0..threads).for_each(|_| drop(scope.spawn(runs)));
    });
}

fn kept_seeds() -> Vec<u64> {
    let lines = std::fs::read_to_string(KEPT).unwrap();
    let lines = lines.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().next()).map(|seed| seed.parse().unwrap()).collect()
}

/// Runs a seed. If it fails, keeps it in the file, and calls `stop`.
fn run_noted(seed: u64, stop: impl FnOnce()) {
    if let Err(panic) = catch_unwind(|| run(seed)) {
        stop();
        let mut file = OpenOptions::new().append(true).open(KEPT).unwrap();
        writeln!(file, "{seed}").unwrap();
        resume_unwind(panic);
    }
}

/// Runs the schedule of a seed. `CLUSTER_SEED=SEED CLUSTER_SCHEDULES=1` runs it alone.
fn run(seed: u64) {
    if catch_unwind(|| follow(seed, false)).is_err() {
        // Once more, and told.
        println!("seed {seed} fails; CLUSTER_SEED={seed} CLUSTER_SCHEDULES=1 runs it alone");
        follow(seed, true);
        panic!("seed {seed} fails, and holds when it is told: the world is not decided by its seed");
    }
}

fn follow(seed: u64, told: bool) {
    let mut world = World::new(seed, NODES, told);
    for _ in 0..ACTS {
        act(&mut world);
        let pause = Duration::from_millis(world.rng.u64(..2_500));
        let until = world.now + pause;
        world.run(until);
    }
    heal(&mut world);
    let until = world.now + Duration::from_secs(20);
    world.run(until);
    check(&world);
}

fn act(world: &mut World) {
    let node = world.rng.usize(..NODES);
    match world.rng.u8(..25) {
        0..=8 => register(world, node),
        9..=11 => end_some(world, node),
        12 | 13 => half_open_some(world, node),
        14 => {
            world.disturb(node);
            world.kill(node);
        }
        15 | 16 => start_if_dead(world, node),
        17 => pause(world, node),
        18 => {
            world.disturb(node);
            world.cut_from_engine[node] ^= true;
        }
        19 => cut(world),
        20 => fail_engine(world),
        21 => restart_engine(world),
        22 => {
            world.disturb(node);
            world.break_connection(node);
        }
        23 => slow(world),
        _ => empty_engine(world),
    }
}

fn start_if_dead(world: &mut World, node: usize) {
    if world.nodes[node].is_none() {
        world.start(node);
    }
}

fn register(world: &mut World, node: usize) {
    let id = DeviceId::new(&format!("cvd-{}", world.rng.u64(..IDS)));
    let disturbed = world.is_disturbed(node);
    let (replaces, now) = (world.replaces, world.instant());
    if let Some(process) = &mut world.nodes[node]
        && !process.paused
    {
        process.register(&id, replaces, disturbed, now);
        world.poke(node);
    }
}

fn end_some(world: &mut World, node: usize) {
    let now = world.instant();
    let Some(process) = &mut world.nodes[node] else { return };
    let sessions: Vec<_> = process.sessions.keys().cloned().collect();
    if let Some(registration) = world.rng.choice(sessions)
        && !process.paused
    {
        process.leave(&registration, now);
        world.poke(node);
    }
}

/// A device vanishes without a word. Its session stays.
fn half_open_some(world: &mut World, node: usize) {
    let Some(process) = &mut world.nodes[node] else { return };
    if let Some(session) = world.rng.choice(process.sessions.values_mut()) {
        session.alive = false;
    }
}

fn pause(world: &mut World, node: usize) {
    let seconds = [0.5, 4.0, 12.0, 70.0];
    let pause = Duration::from_secs_f64(world.rng.choice(seconds).unwrap());
    world.disturb(node);
    world.pause(node, pause);
}

fn cut(world: &mut World) {
    let (a, b) = (world.rng.usize(..NODES - 1), NODES - 1);
    world.disturb(a);
    world.disturb(b);
    match world.cut.iter().position(|pair| *pair == (a, b)) {
        Some(place) => drop(world.cut.remove(place)),
        None => world.cut.push((a, b)),
    }
}

fn disturb_all(world: &mut World) {
    (0..NODES).for_each(|node| world.disturb(node));
}

fn fail_engine(world: &mut World) {
    disturb_all(world);
    world.engine_up = false;
    (0..NODES).for_each(|node| world.break_connection(node));
}

/// The engine comes back: as it was, empty, or as it was at some time.
fn restart_engine(world: &mut World) {
    fail_engine(world);
    world.engine_up = true;
    match world.rng.u8(..4) {
        0 => world.engine = Engine::new(world.timing.clone(), world.rng.u64(..), world.now),
        1 => world.engine = world.saved.clone(),
        2 => world.saved = world.engine.clone(),
        _ => {}
    }
}

/// All data of the engine is deleted under the feet of the nodes.
fn empty_engine(world: &mut World) {
    disturb_all(world);
    world.engine = Engine::new(world.timing.clone(), world.rng.u64(..), world.now);
}

fn slow(world: &mut World) {
    disturb_all(world);
    world.slow ^= true;
}

/// Ends all faults. Dead nodes start, and what is half-open ends.
fn heal(world: &mut World) {
    disturb_all(world);
    if !world.engine_up {
        world.engine_up = true;
    }
    world.slow = false;
    world.cut.clear();
    world.cut_from_engine.fill(false);
    for node in 0..NODES {
        start_if_dead(world, node);
        world.end_pause(node);
        let now = world.instant();
        if let Some(process) = &mut world.nodes[node] {
            let dead = process.sessions.iter().filter(|(_, session)| !session.alive);
            for registration in dead.map(|(registration, _)| registration.clone()).collect::<Vec<_>>() {
                process.leave(&registration, now);
            }
        }
        world.poke(node);
    }
}

fn check(world: &World) {
    let story = || world.story();
    let registry: BTreeMap<_, _> =
        world.engine.devices.iter().map(|(id, entry)| (id.clone(), entry.registration.clone())).collect();
    let mut union = BTreeMap::new();
    for process in world.nodes.iter().flatten() {
        for (registration, session) in &process.sessions {
            assert_eq!(session.state, SessionState::Granted, "{registration} of {}: {}", session.id, story());
            let other = union.insert(session.id.clone(), registration.clone());
            assert!(other.is_none(), "{other:?} and {registration} have {}: {}", session.id, story());
        }
        let known = process.membership.directory().iter();
        let known: BTreeMap<_, _> = known.map(|(id, entry)| (id.clone(), entry.registration.clone())).collect();
        assert!(process.membership.is_member(), "{} is no member: {}", process.incarnation, story());
        assert_eq!(known, registry, "the directory of {}: {}", process.incarnation, story());
    }
    assert_eq!(union, registry, "the sessions: {}", story());
}
