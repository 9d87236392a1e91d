// SPDX-License-Identifier: GPL-2.0

//! Cases of redis under load, with an epoch of a tracker each 100 ms.
//!
//! Each side has a redis-server of its own, with the same keys, on the other processor. A sample is
//! a number of `SET` of keys at random, the same on both sides, which are always there for the
//! server to read: what is measured is what the server can do beside the epochs. Time is that for
//! one request, so its reciprocal is the requests in a second.
//!
//! Either side learns of the pages of all private anonymous memory, and makes ranges of them. The
//! first epoch, which has all pages, is before the clock runs. What is told is checked: something
//! during the load, and after it all objects that new values are put into, and not much besides.

use std::process::Child;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use mmops_raw::write_tracking::ProcessUffd;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::bench::{Bench, Side};
use crate::foreign_uffd;
use crate::redis_server::{put, Server};
use crate::watch::{Watch, Way};

/// Time between two epochs.
const EPOCH: Duration = Duration::from_millis(100);
/// What a sample is to take, and how many epochs with pages it has at the least, however slow the
/// machine is.
const SAMPLE: Duration = Duration::from_millis(1500);
const EPOCHS: u32 = 2;

/// Keys, and bytes of each value.
const KEYS: u32 = 1 << 19;
const VALUE: u32 = 200;
/// Pages that the values alone would fill.
pub const PAGES: u32 = KEYS / 4096 * VALUE;

/// Requests by which it is learned how many a sample has.
const TRIAL: usize = 20_000;
/// Keys whose objects are looked for, and how many pages of others may be told besides: hardly more
/// than the server has of its own.
const MARKED: u32 = 64;
const BESIDES: u64 = 4096;

/// One side.
struct Watched {
    way: Way,
    server: Server,
    uffd: Option<ProcessUffd>,
}

/// A case of redis.
pub struct RedisBench {
    reference: Watched,
    own: Watched,
    /// Requests of a sample.
    requests: usize,
}

impl Watched {
    fn new(way: Way) -> Result<Self> {
        let mut uffd = None;
        let mut server = Server::start(|command| -> Result<Child> {
            if way != Way::Scan {
                return Ok(command.spawn()?);
            }
            let (child, made) = foreign_uffd::spawn(command)?;
            uffd = Some(made);
            Ok(child)
        })?;
        let (keys, value) = (KEYS.to_string(), VALUE.to_string());
        server.execute(&["DEBUG", "POPULATE", &keys, "key", &value])?;
        Ok(Self { way, server, uffd })
    }

    /// The load, with an epoch each 100 ms.
    fn sample(&mut self, sets: &[u8], number: usize) -> Result<Duration> {
        let Self { way, server, uffd } = self;
        let mut watch = Watch::new(*way, server.pid(), uffd.as_ref())?;
        watch.epoch()?;
        let time = thread::scope(|scope| {
            let (done, is_done) = channel();
            let epochs = scope.spawn(|| epochs(&mut watch, is_done));
            let time = server.set_all(sets, number);
            drop(done);
            epochs.join().expect("it does not panic")?;
            time
        })?;
        check(server, &mut watch)?;
        Ok(time)
    }
}

/// Whether the pages of objects that are made are told, and not all pages.
fn check(server: &mut Server, watch: &mut Watch<'_>) -> Result<()> {
    if !watch.tells() {
        return Ok(());
    }
    watch.epoch()?;
    let mut made = Vec::new();
    for number in 0..MARKED {
        let key = format!("key:{}", number * (KEYS / MARKED));
        server.execute(&["SET", &key, &value(number)])?;
        let answer = server.execute(&["DEBUG", "OBJECT", &key])?;
        made.push(address_in(&answer)?);
    }
    let told = watch.epoch()?;
    let missed = made.iter().filter(|address| !told.has(**address)).count();
    ensure!(missed == 0, "of {MARKED} objects {missed} are not told");
    let most = u64::from(MARKED) + BESIDES;
    ensure!(told.stored < most, "{} pages are told", told.stored);
    Ok(())
}

/// The address in an answer to `DEBUG OBJECT`.
fn address_in(answer: &str) -> Result<u64> {
    let (_, rest) = answer.split_once("at:0x").context("no address")?;
    let digits = rest.split(' ').next().unwrap_or_default();
    u64::from_str_radix(digits, 16).with_context(|| format!("no address: {answer}"))
}

/// Has an epoch each 100 ms until the load is done.
fn epochs(watch: &mut Watch<'_>, done: Receiver<()>) -> Result<()> {
    let mut next = Instant::now() + EPOCH;
    let mut number = 0;
    let pause = |next: Instant| next.saturating_duration_since(Instant::now());
    while done.recv_timeout(pause(next)) == Err(RecvTimeoutError::Timeout) {
        let told = watch.epoch()?;
        // On a busy machine there may be some in which the server did not run.
        number += u32::from(told.stored > 0 || !watch.tells());
        // None is made up for.
        next = (next + EPOCH).max(Instant::now());
    }
    ensure!(number >= EPOCHS, "{number} epochs with pages only");
    Ok(())
}

fn value(number: u32) -> String {
    format!("{number:0>width$}", width = VALUE as usize)
}

/// So many `SET` of keys at random.
fn sets(seed: u64, number: usize) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut text = Vec::with_capacity(number * (VALUE as usize + 60));
    for _ in 0..number {
        let key = rng.random_range(0..KEYS);
        put(&mut text, &["SET", &format!("key:{key}"), &value(key)]);
    }
    text
}

impl RedisBench {
    /// Starts both servers, and finds out how many requests a sample is to have.
    pub fn new(reference: Way) -> Result<Self> {
        let mut bench = Self {
            reference: Watched::new(reference)?,
            own: Watched::new(Way::Tracker)?,
            requests: 0,
        };
        let trial = sets(u64::MAX, TRIAL);
        for watched in [&mut bench.reference, &mut bench.own] {
            let time = watched.server.set_all(&trial, TRIAL)?;
            let requests = TRIAL as f64 * SAMPLE.as_secs_f64() / time.as_secs_f64();
            bench.requests = bench.requests.max(requests as usize);
        }
        Ok(bench)
    }
}

impl Bench for RedisBench {
    fn sides(&self) -> &'static [Side] {
        &[Side::Reference, Side::Mmops]
    }

    fn sample(&mut self, side: Side, seed: u64) -> Result<f64> {
        let sets = sets(seed, self.requests);
        let watched = match side {
            Side::Reference => &mut self.reference,
            Side::Mmops | Side::Ioctl => &mut self.own,
        };
        let time = watched.sample(&sets, self.requests)?;
        Ok(time.as_nanos() as f64 / self.requests as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_its_requests() {
        assert_eq!(sets(1, 50), sets(1, 50));
        assert_ne!(sets(1, 50), sets(2, 50));
        let text = String::from_utf8(sets(1, 50)).unwrap();
        assert_eq!(text.matches("$3\r\nSET\r\n").count(), 50);
        assert_eq!(text.matches("$200\r\n").count(), 50);
    }

    #[test]
    fn an_answer_has_an_address() {
        let answer = "+Value at:0x7f88d3101a90 refcount:1 encoding:raw\r\n";
        assert_eq!(address_in(answer).unwrap(), 0x7f88_d310_1a90);
        assert!(address_in("-ERR no such key\r\n").is_err());
    }
}
