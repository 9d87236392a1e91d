// SPDX-License-Identifier: GPL-2.0

//! What a replica is after a stream that was cut, changed or made up, and after a kill or a loss of
//! power at each step: always the state after a whole round.
//!
//! Each of these is tried without what it is about as well, and has to fail then.

use std::io::Read;
use std::ops::Range;

use anyhow::{ensure, Result};
use fastrand::Rng;

use crate::disk::{Disk, Name};
use crate::disk_model::{Lie, Model};
use crate::frame::{Decoder, Encoder};
use crate::receiver::{receive, receive_from, Incomplete};
use crate::record::{Header, Point, Record, STREAM};
use crate::store::{Rounds, Store};
use crate::stream::tests::to_vec;
use crate::target::Target;

const OLD: u128 = 1;
const ID: u128 = 2;
const MOST: u64 = 640;

/// A stream, and what it makes.
struct Sample {
    bytes: Vec<u8>,
    /// Where each round ends in the stream.
    ends: Vec<usize>,
    /// The file after each round.
    states: Vec<Vec<u8>>,
}

impl Sample {
    /// The stream of `rounds` rounds at random, on top of `state`.
    fn new(
        id: u128,
        rounds: usize,
        base: Option<Point>,
        mut state: Vec<u8>,
        rng: &mut Rng,
    ) -> Self {
        let mut stream = to_vec(id, state.len() as u64, base);
        let (mut ends, mut states) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let size = rng.u64(1..MOST);
            stream.begin(size).unwrap();
            state.resize(size as usize, 0);
            for _ in 0..rng.usize(1..6) {
                let start = rng.u64(0..size);
                let end = rng.u64(start + 1..=size);
                let part = &mut state[start as usize..end as usize];
                if rng.u8(0..3) == 0 {
                    part.fill(0);
                    stream.make_hole(start..end).unwrap();
                } else {
                    part.fill_with(|| rng.u8(1..));
                    stream.write(part, start).unwrap();
                }
            }
            stream.end().unwrap();
            ends.push(stream.written().len());
            states.push(state.clone());
        }
        stream.finish().unwrap();
        Self {
            bytes: stream.written().to_vec(),
            ends,
            states,
        }
    }

    /// Rounds that are whole in the first `length` bytes.
    fn whole(&self, length: usize) -> usize {
        self.ends.iter().filter(|&&end| end <= length).count()
    }

    /// The replica after so many rounds.
    fn after(&self, rounds: usize) -> Vec<u8> {
        match rounds {
            0 => old_state(),
            _ => self.states[rounds - 1].clone(),
        }
    }
}

fn old_state() -> Vec<u8> {
    b"what the replica was before".repeat(9)
}

/// A disk with a replica that is round 0 of stream [`OLD`].
fn disk(lie: Option<Lie>) -> Model {
    let model = Model::new();
    let old = old_state();
    let mut stream = to_vec(OLD, old.len() as u64, None);
    stream.begin(old.len() as u64).unwrap();
    stream.write(&old, 0).unwrap();
    stream.end().unwrap();
    stream.finish().unwrap();
    let mut store = Store::open(&model).unwrap();
    receive(stream.written(), &mut store, |_| {}).unwrap();
    model.restart(Some(&mut Rng::with_seed(0)));
    model.with_lie(lie)
}

/// The negative control of the store: writes each record to the replica at once.
struct Direct<'a>(&'a Model);

impl Rounds for Direct<'_> {
    fn accept(&mut self, _header: &Header) -> Result<()> {
        Ok(())
    }

    fn begin(&mut self, _to: Point, size: u64) -> Result<()> {
        self.0.set_size(Name::Replica, size)
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        self.0.write(Name::Replica, bytes, offset)
    }

    fn zero(&mut self, range: Range<u64>) -> Result<()> {
        self.0.make_hole(Name::Replica, range)
    }

    fn end(&mut self) -> Result<()> {
        self.0.sync(Name::Replica)
    }
}

/// Makes a stream in a replica, and says what of it was whole.
fn apply(input: impl Read, model: &Model) -> (usize, Result<()>) {
    let mut rounds = 0;
    let go = || {
        let mut store = Store::open(model)?;
        let result = receive(input, &mut store, |whole| rounds = whole.rounds as usize);
        if result.is_err() {
            store.discard()?;
        }
        result
    };
    let result = go();
    (rounds, result)
}

fn replica(model: &Model) -> Vec<u8> {
    model.contents(Name::Replica).unwrap_or_default()
}

fn is_cut(error: &anyhow::Error) -> bool {
    error.downcast_ref() == Some(&Incomplete::Cut)
}

#[test]
fn a_cut_anywhere_leaves_a_whole_round() {
    let mut rng = Rng::with_seed(1);
    let sample = Sample::new(ID, 6, None, vec![], &mut rng);
    let mut between = 0;
    for length in 0..sample.bytes.len() {
        let (input, whole) = (&sample.bytes[..length], sample.whole(length));
        let model = disk(None);
        let (rounds, result) = apply(input, &model);
        assert!(is_cut(&result.unwrap_err()), "{length}");
        assert_eq!(rounds, whole, "{length}");
        assert!(replica(&model) == sample.after(whole), "{length}");
        assert_eq!(model.contents(Name::New), None);
        assert_eq!(model.contents(Name::Journal), Some(vec![]));

        let control = disk(None);
        receive(input, &mut Direct(&control), |_| {}).unwrap_err();
        between += u32::from(replica(&control) != sample.after(whole));
    }
    assert!(between > 100, "{between} of {}", sample.bytes.len());
    let model = disk(None);
    assert!(apply(&sample.bytes[..], &model).1.is_ok());
    assert_eq!(replica(&model), sample.after(6));
}

#[test]
fn a_change_anywhere_is_told_and_leaves_a_whole_round() {
    let mut rng = Rng::with_seed(2);
    let sample = Sample::new(ID, 5, None, vec![], &mut rng);
    let mut passed = 0;
    for at in 0..sample.bytes.len() {
        let mut bytes = sample.bytes.clone();
        bytes[at] ^= rng.u8(1..);
        let model = disk(None);
        let (rounds, result) = apply(&bytes[..], &model);
        result.unwrap_err();
        assert_eq!(rounds, sample.whole(at), "{at}");
        assert!(replica(&model) == sample.after(rounds), "{at}");

        // Without the checksums, much of it is not told.
        let control = disk(None);
        if let Ok(mut decoder) = Decoder::new(&bytes[..], STREAM, "a stream") {
            decoder.trusts_all = true;
            let mut store = Store::open(&control).unwrap();
            let is_told = receive_from(decoder, &mut store, |_| {}).is_err();
            let states = &sample.states;
            passed += u32::from(!is_told && !states.contains(&replica(&control)));
        }
    }
    assert!(passed > 100, "{passed} of {}", sample.bytes.len());
}

/// What there is before a stream.
#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    /// A replica that is replaced.
    Old,
    /// The replica that the stream goes on from.
    Base,
}

impl Before {
    fn disk(self, lie: Option<Lie>) -> Model {
        match self {
            Self::Nothing => Model::new().with_lie(lie),
            Self::Old | Self::Base => disk(lie),
        }
    }

    fn sample(self, rng: &mut Rng) -> Sample {
        let old = Point {
            stream: OLD,
            round: 0,
        };
        match self {
            Self::Nothing | Self::Old => Sample::new(ID, 4, None, vec![], rng),
            Self::Base => Sample::new(ID, 4, Some(old), old_state(), rng),
        }
    }
}

/// Whether the replica is the state that it says, which has the rounds that were whole, and can be
/// gone on from.
fn check(model: &Model, sample: &Sample, whole: usize, rng: &mut Rng) -> Result<()> {
    let store = Store::open(model)?;
    ensure!(model.contents(Name::New).is_none(), "a new file was left");
    ensure!(model.contents(Name::NewState).is_none(), "a new state");
    let Some(state) = store.state() else {
        ensure!(whole == 0, "round {whole} was lost");
        ensure!(model.contents(Name::Replica).is_none(), "of no round");
        return Ok(());
    };
    let rounds = match state.point.stream {
        OLD => 0,
        _ => state.point.round as usize + 1,
    };
    ensure!(rounds >= whole, "round {whole} was lost");
    ensure!(replica(model) == sample.after(rounds), "between two rounds");
    let next = Sample::new(ID + 1, 2, Some(state.point), replica(model), rng);
    apply(&next.bytes[..], model).1?;
    ensure!(replica(model) == next.after(2), "it does not go on");
    Ok(())
}

/// Stops apply at each step, and the recovery at each of its own; how often that leaves something
/// else than a whole round.
fn stop_everywhere(lie: Option<Lie>, power_loss: bool, seeds: Range<u64>) -> u32 {
    let mut failures = 0;
    let all = [Before::Nothing, Before::Old, Before::Base];
    for (seed, before) in seeds.flat_map(|seed| all.map(|before| (seed, before))) {
        let mut rng = Rng::with_seed(seed);
        let sample = before.sample(&mut rng);
        let model = before.disk(lie);
        assert!(apply(&sample.bytes[..], &model).1.is_ok());
        let steps = model.steps.get();
        assert!(steps > 40, "{steps}");
        for step in 0..steps {
            let model = before.disk(lie);
            model.kill_at.set(Some(step));
            let (whole, result) = apply(&sample.bytes[..], &model);
            result.unwrap_err();
            let mut again = Some(0);
            // Until the recovery comes to its end.
            while let Some(at) = again {
                let after = model.clone();
                after.restart(power_loss.then_some(&mut rng));
                after.kill_at.set(Some(at));
                let was_killed = Store::open(&after).is_err() && after.steps.get() > at;
                after.restart(power_loss.then_some(&mut rng));
                let result = check(&after, &sample, whole, &mut rng);
                if let (Err(error), None) = (&result, lie) {
                    panic!("{before:?}, seed {seed}, step {step}, then {at}: {error:#}");
                }
                failures += u32::from(result.is_err());
                again = was_killed.then_some(at + 1);
            }
        }
    }
    failures
}

#[test]
fn a_kill_at_each_step_leaves_a_whole_round() {
    stop_everywhere(None, false, 0..5);
}

#[test]
fn a_power_loss_at_each_step_leaves_a_whole_round() {
    stop_everywhere(None, true, 0..10);
}

#[test]
fn each_sync_is_needed() {
    for lie in [
        Lie::Contents(Name::New),
        Lie::Contents(Name::Replica),
        Lie::Contents(Name::Journal),
        Lie::Contents(Name::NewState),
        Lie::Names,
    ] {
        let failures = stop_everywhere(Some(lie), true, 0..3);
        assert!(failures > 0, "nothing needs {lie:?}");
        // A kill alone loses nothing that was written.
        assert_eq!(stop_everywhere(Some(lie), false, 0..1), 0);
    }
}

#[test]
fn the_store_is_needed() {
    let sample = Sample::new(ID, 4, None, vec![], &mut Rng::with_seed(4));
    let model = disk(None);
    receive(&sample.bytes[..], &mut Direct(&model), |_| {}).unwrap();
    let mut between = 0;
    for step in 0..model.steps.get() {
        let model = disk(None);
        model.kill_at.set(Some(step));
        let _ = receive(&sample.bytes[..], &mut Direct(&model), |_| {});
        between += u32::from((0..=4).all(|round| replica(&model) != sample.after(round)));
    }
    assert!(between > 5, "{between}");
}

/// What a stream may be, said once more: the rounds that are whole, and whether all of it is good.
fn oracle(records: &[Record<'_>]) -> (Option<Vec<u8>>, bool) {
    let (mut whole, mut state) = (None, Vec::new());
    let mut rest = match records {
        [Record::Header(Header { base: None, .. }), rest @ ..] => rest,
        _ => return (None, false),
    };
    for round in 0.. {
        match rest {
            [Record::Finish { rounds }] => return (whole, *rounds == round),
            [Record::Begin {
                round: number,
                size,
            }, after @ ..]
                if *number == round && *size <= 1 << 20 =>
            {
                state.resize(*size as usize, 0);
                rest = after;
            }
            _ => break,
        }
        for count in 0.. {
            let size = state.len() as u128;
            let (offset, length, bytes) = match rest[..] {
                [Record::Data { offset, bytes }, ..] => (offset, bytes.len() as u64, bytes),
                [Record::Zero { offset, length }, ..] => (offset, length, &[][..]),
                [Record::End {
                    round: number,
                    records,
                }, ..]
                    if number == round && records == count =>
                {
                    whole = Some(state.clone());
                    rest = &rest[1..];
                    break;
                }
                _ => return (whole, false),
            };
            if u128::from(offset) + u128::from(length) > size {
                return (whole, false);
            }
            let part = &mut state[offset as usize..(offset + length) as usize];
            match bytes {
                [] => part.fill(0),
                bytes => part.copy_from_slice(bytes),
            }
            rest = &rest[1..];
        }
    }
    (whole, false)
}

fn number(rng: &mut Rng) -> u64 {
    let near = rng.u64(0..3);
    match rng.u8(0..12) {
        0 => u64::MAX - near,
        1 => i64::MAX as u64 + near,
        2 => 1 << rng.u32(0..64),
        _ => rng.u64(0..20),
    }
}

#[test]
fn records_that_are_made_up() {
    const BYTES: [u8; 20] = [7; 20];
    let (mut good, mut bad) = (0, 0);
    for seed in 0..20_000 {
        let mut rng = Rng::with_seed(seed);
        let rng = &mut rng;
        let mut records = vec![Record::Header(Header {
            stream: ID,
            page_size: 4096,
            size: number(rng),
            base: None,
        })];
        // Sound records, of which some are then changed.
        for round in 0..rng.u64(0..4) {
            let size = rng.u64(0..40);
            let begin = records.len() as u64 + 1;
            records.push(Record::Begin { round, size });
            for _ in 0..rng.u64(0..4) {
                let offset = rng.u64(0..=size);
                let length = rng.u64(0..=size - offset);
                records.push(if rng.bool() {
                    Record::Zero { offset, length }
                } else {
                    let bytes = &BYTES[..length.min(20) as usize];
                    Record::Data { offset, bytes }
                });
            }
            records.push(Record::End {
                round,
                records: records.len() as u64 - begin,
            });
        }
        let rounds = records.iter().filter(|r| matches!(r, Record::End { .. }));
        let rounds = rounds.count() as u64;
        records.push(Record::Finish { rounds });
        for _ in 0..rng.u8(0..3) {
            let at = rng.usize(0..records.len());
            let (first, second) = (number(rng), number(rng));
            let other = match rng.u8(0..6) {
                0 => Record::Begin {
                    round: first,
                    size: second,
                },
                1 => Record::Data {
                    offset: first,
                    bytes: &BYTES,
                },
                2 => Record::Zero {
                    offset: first,
                    length: second,
                },
                3 => Record::End {
                    round: first,
                    records: second,
                },
                4 => Record::Finish { rounds: first },
                _ => records[rng.usize(0..records.len())],
            };
            match rng.u8(0..3) {
                0 => records[at] = other,
                1 => records.insert(at, other),
                _ => drop(records.remove(at)),
            }
            if records.is_empty() {
                break;
            }
        }
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(STREAM, &mut bytes);
        for record in &records {
            record.encode(&mut encoder, &mut bytes);
        }
        let model = disk(None);
        let (_, result) = apply(&bytes[..], &model);
        let (whole, is_good) = oracle(&records);
        assert_eq!(result.is_ok(), is_good, "{seed}: {records:?}: {result:?}");
        let expected = whole.unwrap_or_else(old_state);
        assert!(
            replica(&model) == expected,
            "{seed}: {records:?}: {result:?}"
        );
        // Nothing is left that cannot be made.
        assert!(Store::open(&model).is_ok(), "{seed}: {records:?}");
        good += u32::from(is_good);
        bad += u32::from(!is_good);
    }
    assert!(good > 5000 && bad > 5000, "{good} {bad}");
}

#[test]
fn a_size_that_the_disk_has_not_fails_before_the_round_is_whole() {
    let mut stream = to_vec(ID, 5, None);
    for size in [5, 1 << 40] {
        stream.begin(size).unwrap();
        stream.write(b"bytes", 0).unwrap();
        stream.end().unwrap();
    }
    stream.finish().unwrap();
    let model = disk(None);
    let (rounds, result) = apply(stream.written(), &model);
    assert!(format!("{:#}", result.unwrap_err()).contains("too large"));
    assert!(rounds == 1 && replica(&model) == b"bytes");
    // No journal is left that can never be made.
    Store::open(&model).unwrap();
}

#[test]
fn errors_say_what_is_wrong() {
    let sample = Sample::new(ID, 2, None, vec![], &mut Rng::with_seed(5));
    let error = |bytes: &[u8]| {
        let model = disk(None);
        format!("{:#}", apply(bytes, &model).1.unwrap_err())
    };
    assert!(error(b"#!/bin/sh\necho no stream").contains("not a stream of mmopsctl"));
    let junk = [&sample.bytes[..], b"x"].concat();
    assert!(error(&junk).contains("behind its end"), "{}", error(&junk));
    let twice = [&sample.bytes[..], &sample.bytes].concat();
    assert!(error(&twice).contains("behind its end"));
    let end = sample.ends[0];
    let skipped = [&sample.bytes[..end], &sample.bytes[sample.ends[1]..]].concat();
    assert!(error(&skipped).contains("checksum"), "{}", error(&skipped));
    let resumed = |base| Sample::new(3, 1, Some(base), old_state(), &mut Rng::with_seed(6)).bytes;
    for (stream, round) in [(OLD, 1), (ID, 0)] {
        let error = error(&resumed(Point { stream, round }));
        assert!(error.contains("the stream goes on from"), "{error}");
        assert!(
            error.contains(&format!("is round 0 of stream {OLD:032x}")),
            "{error}"
        );
    }
    let base = Point {
        stream: OLD,
        round: 0,
    };
    let other = disk(None);
    (&other).set_size(Name::Replica, 5).unwrap();
    let error = format!("{:#}", apply(&resumed(base)[..], &other).1.unwrap_err());
    assert!(error.contains("has not the size"), "{error}");
    let empty = Model::new();
    let error = format!("{:#}", apply(&resumed(base)[..], &empty).1.unwrap_err());
    assert!(error.contains("has no state"), "{error}");
    assert_eq!(empty.contents(Name::Replica), None);
}
