// SPDX-License-Identifier: GPL-2.0

//! `mmopsctl watch`

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mmops_uapi::Device;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Sparkline};
use ratatui::{DefaultTerminal, Frame};

use crate::cli::{Pages, Watch};
use crate::harvest::{DirtyPages, Harvested, Harvester};
use crate::output::output;
use crate::stop::Stop;
use crate::tracked::Tracked;
use crate::units;

/// Parts of the file that heat is kept for, at most.
const BUCKETS: u64 = 1 << 16;
/// What is left of heat after a harvest without stores.
const DECAY: f32 = 0.7;
/// Heat below this is none.
const COLD: f32 = 0.005;
/// Harvests whose rate is kept.
const HISTORY: usize = 512;
/// How long a signal can go unnoticed while keys are waited for.
const POLL: Duration = Duration::from_millis(100);
/// Columns of the map where there is no terminal.
const LINE_COLUMNS: usize = 60;
/// Heat as characters, coldest first.
const CHARACTERS: &[char] = &['.', ':', '-', '=', '+', '*', '#', '%', '@'];
/// Heat as colours of the 256-colour palette, coldest first.
const COLOURS: &[u8] = &[22, 28, 34, 40, 76, 112, 148, 184, 220, 214, 208, 202, 196];

/// Where a file was stored to lately.
#[derive(Debug, Default)]
struct Heat {
    pages: u64,
    pages_per_bucket: u64,
    buckets: Vec<f32>,
}

impl Heat {
    /// Lets the heat cool down; another size begins anew.
    fn cool(&mut self, pages: u64) {
        if pages != self.pages {
            self.pages = pages;
            self.pages_per_bucket = pages.div_ceil(BUCKETS).max(1);
            let buckets = pages.div_ceil(self.pages_per_bucket);
            self.buckets = vec![0.0; buckets as usize];
        }
        for heat in &mut self.buckets {
            *heat = if *heat < COLD { 0.0 } else { *heat * DECAY };
        }
    }

    /// Adds the heat of a run of dirty pages.
    fn add(&mut self, run: Range<u64>) {
        let mut page = run.start;
        while page < run.end {
            let bucket = page / self.pages_per_bucket;
            let end = run.end.min((bucket + 1) * self.pages_per_bucket);
            let share = (end - page) as f32 / self.pages_per_bucket as f32;
            if let Some(heat) = self.buckets.get_mut(bucket as usize) {
                *heat = (*heat + share).min(1.0);
            }
            page = end;
        }
    }

    /// The file in `cells` parts of one size, the last one maybe shorter: the heat of each.
    fn cells(&self, cells: usize) -> impl Iterator<Item = f32> + '_ {
        let per_cell = self.buckets.len().div_ceil(cells.max(1)).max(1);
        // The hottest bucket shows: a mean would hide a few hot pages in a large file.
        self.buckets
            .chunks(per_cell)
            .map(|chunk| chunk.iter().copied().fold(0.0, f32::max))
    }

    fn pages_per_cell(&self, cells: usize) -> u64 {
        self.buckets.len().div_ceil(cells.max(1)).max(1) as u64 * self.pages_per_bucket
    }
}

/// The step of `scale` for `heat`; none for a cold part.
fn step<T: Copy>(scale: &[T], heat: f32) -> Option<T> {
    // The root spreads the low values, which are the usual ones.
    let index = (heat.sqrt() * scale.len() as f32) as usize;
    (heat >= COLD).then(|| scale[index.min(scale.len() - 1)])
}

/// What is watched, and what was seen.
struct Watcher<'a> {
    tracked: &'a Tracked,
    harvester: Harvester<'a>,
    page_size: u64,
    begin: Instant,
    last: Instant,
    heat: Heat,
    harvests: u64,
    harvested: Harvested,
    total: u64,
    /// Pages per second of the last harvests, newest first.
    rates: VecDeque<u64>,
    hint: Option<String>,
}

impl Watcher<'_> {
    /// One harvest.
    fn harvest(&mut self) -> Result<()> {
        let size = self.tracked.metadata()?.len();
        let range = match size {
            0 => 0..0,
            _ => self
                .tracked
                .range(&Pages { first: 0, nr: None }, self.page_size)?,
        };
        let heat = &mut self.heat;
        heat.cool(range.end);
        self.harvested = self
            .harvester
            .harvest(range, &mut |bitmap| {
                bitmap.runs().for_each(|run| heat.add(run));
                Ok(())
            })
            .with_context(|| self.tracked.path().display().to_string())?;
        self.harvests += 1;
        self.total += self.harvested.pages;
        let elapsed = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        // The first harvest finds what was stored at any time before.
        if self.harvests > 1 {
            self.rates
                .push_front((self.harvested.pages as f64 / elapsed) as u64);
            self.rates.truncate(HISTORY);
        }
        self.hint = (self.total == 0)
            .then(|| self.tracked.hint_when_clean())
            .flatten();
        Ok(())
    }

    fn rate(&self) -> u64 {
        self.rates.front().copied().unwrap_or(0)
    }

    fn print_line(&self) -> Result<()> {
        let map: String = self
            .heat
            .cells(LINE_COLUMNS)
            .map(|heat| step(CHARACTERS, heat).unwrap_or(' '))
            .collect();
        let mut out = output();
        writeln!(
            out,
            "{:8.1} s |{map}| {}, {}/s",
            self.begin.elapsed().as_secs_f64(),
            units::pages(self.harvested.pages, self.page_size),
            units::bytes(self.rate() * self.page_size),
        )?;
        out.flush()?;
        Ok(())
    }

    fn draw(&self, frame: &mut Frame) {
        let [head, map, rate, foot] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Min(4),
            Constraint::Length(7),
            Constraint::Length(1),
        ])
        .areas(frame.area());

        let name = self.tracked.path().display();
        let now = format!(
            "{} in the last harvest ({}), {}/s; {} in all",
            units::pages(self.harvested.pages, self.page_size),
            units::seconds(self.harvested.time.as_secs_f64()),
            units::bytes(self.rate() * self.page_size),
            units::bytes(self.total * self.page_size),
        );
        let title = format!("{name}: {}", units::pages(self.heat.pages, self.page_size));
        frame.render_widget(
            Paragraph::new(vec![Line::from(title), Line::from(now)]),
            head,
        );

        let block = Block::bordered();
        let inner = block.inner(map);
        let columns = usize::from(inner.width).max(1);
        let cells = columns * usize::from(inner.height);
        let per_cell = units::pages(self.heat.pages_per_cell(cells), self.page_size);
        let heats: Vec<f32> = self.heat.cells(cells).collect();
        let lines: Vec<Line> = heats.chunks(columns).map(map_line).collect();
        let title = format!(" stored to; one cell is {per_cell} ");
        frame.render_widget(Paragraph::new(lines).block(block.title(title)), map);

        let highest = self.rates.iter().copied().max().unwrap_or(0) * self.page_size;
        let title = format!(" rate, newest left; highest {}/s ", units::bytes(highest));
        let rates: Vec<u64> = self.rates.iter().copied().collect();
        let graph = Sparkline::default()
            .block(Block::bordered().title(title))
            .style(Style::new().fg(Color::Green))
            .data(rates);
        frame.render_widget(graph, rate);

        let keys = self.hint.as_deref().unwrap_or("q or Ctrl-C: end");
        frame.render_widget(Line::from(keys), foot);
    }
}

/// A line of the map.
fn map_line(heats: &[f32]) -> Line<'static> {
    let cell = |&heat: &f32| match step(COLOURS, heat) {
        Some(colour) => Span::styled("█", Style::new().fg(Color::Indexed(colour))),
        None => Span::styled("·", Style::new().fg(Color::DarkGray)),
    };
    Line::from(heats.iter().map(cell).collect::<Vec<_>>())
}

/// Whether there is a terminal to draw on. A serial console may not know its size.
fn is_screen() -> bool {
    io::stdout().is_terminal()
        && io::stdin().is_terminal()
        && terminal::size().is_ok_and(|(columns, rows)| columns != 0 && rows != 0)
}

/// Whether the key that was pressed, if any, ends the program. Waits for `time`.
fn wait_for_key(time: Duration) -> Result<bool> {
    if !event::poll(time).context("cannot read from the terminal")? {
        return Ok(false);
    }
    let Event::Key(key) = event::read().context("cannot read from the terminal")? else {
        return Ok(false);
    };
    let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    let quit = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
    Ok(key.kind == KeyEventKind::Press && (interrupt || quit))
}

fn on_terminal(
    terminal: &mut DefaultTerminal,
    watcher: &mut Watcher,
    stop: &Stop,
    args: &Watch,
) -> Result<()> {
    loop {
        let next = Instant::now() + args.interval;
        watcher.harvest()?;
        if args.rounds == Some(watcher.harvests) {
            return Ok(());
        }
        loop {
            terminal
                .draw(|frame| watcher.draw(frame))
                .context("cannot draw")?;
            let left = next.saturating_duration_since(Instant::now());
            if wait_for_key(left.min(POLL))? || stop.requested() {
                return Ok(());
            }
            if left.is_zero() {
                break;
            }
        }
    }
}

fn in_lines(watcher: &mut Watcher, stop: &Stop, args: &Watch) -> Result<()> {
    loop {
        let next = Instant::now() + args.interval;
        watcher.harvest()?;
        watcher.print_line()?;
        if let (1, Some(hint)) = (watcher.harvests, &watcher.hint) {
            note!("mmopsctl: {hint}");
        }
        if args.rounds == Some(watcher.harvests) {
            return Ok(());
        }
        stop.wait(next.saturating_duration_since(Instant::now()));
        if stop.requested() {
            return Ok(());
        }
    }
}

pub fn run(args: &Watch) -> Result<()> {
    let device = Device::open()?;
    let page_size = u64::from(device.info()?.page_size);
    let tracked = Tracked::open(&args.file)?;
    let stop = Stop::install("the last harvest was not shown")?;
    let mut watcher = Watcher {
        tracked: &tracked,
        harvester: Harvester::new(&device, &tracked, page_size, args.huge.into())?,
        page_size,
        begin: Instant::now(),
        last: Instant::now(),
        heat: Heat::default(),
        harvests: 0,
        harvested: Harvested::default(),
        total: 0,
        rates: VecDeque::new(),
        hint: None,
    };
    if is_screen() {
        let mut terminal = ratatui::try_init().context("cannot set up the terminal")?;
        let result = on_terminal(&mut terminal, &mut watcher, &stop, args);
        ratatui::restore();
        result?;
    } else {
        in_lines(&mut watcher, &stop, args)?;
    }
    note!(
        "{} in {}: {} stored to",
        units::count(watcher.harvests, "harvest"),
        units::seconds(watcher.begin.elapsed().as_secs_f64()),
        units::pages(watcher.total, page_size),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_of_a_small_file_is_page_by_page() {
        let mut heat = Heat::default();
        heat.cool(10);
        heat.add(2..4);
        let cells: Vec<f32> = heat.cells(10).collect();
        assert_eq!(cells, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(heat.pages_per_cell(10), 1);
        assert_eq!(heat.cells(5).collect::<Vec<_>>(), [0.0, 1.0, 0.0, 0.0, 0.0]);
        heat.cool(10);
        assert_eq!(
            heat.cells(5).collect::<Vec<_>>(),
            [0.0, DECAY, 0.0, 0.0, 0.0]
        );
    }

    #[test]
    fn heat_of_a_large_file_is_a_share() {
        let mut heat = Heat::default();
        heat.cool(4 * BUCKETS);
        heat.add(1..6);
        assert_eq!(&heat.buckets[..3], [0.75, 0.5, 0.0]);
        // Pages beyond the end, which it had while the harvest went on.
        heat.add(4 * BUCKETS - 1..4 * BUCKETS + 100);
        assert_eq!(heat.buckets.last(), Some(&0.25));
        heat.cool(5);
        assert_eq!(heat.buckets, [0.0; 5]);
    }

    #[test]
    fn an_empty_file_has_no_cells() {
        let mut heat = Heat::default();
        heat.cool(0);
        assert_eq!(heat.cells(80).count(), 0);
    }

    #[test]
    fn steps() {
        assert_eq!(step(CHARACTERS, 0.0), None);
        assert_eq!(step(CHARACTERS, COLD), Some('.'));
        assert_eq!(step(CHARACTERS, 1.0), Some('@'));
    }
}
