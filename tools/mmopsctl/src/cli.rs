// SPDX-License-Identifier: GPL-2.0

//! The command line.
//!
//! The comments here are the text of `--help`, of the manual pages and of
//! `Documentation/mmopsctl.rst`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Dirty tracking of memory-mapped files with mmops.
///
/// A program that maps a file shared changes it by storing to memory, and the processor notes
/// that in the dirty bit of the page's page-table entry. mmopsctl takes these bits through
/// /dev/mmops, in all processes that map the file, and so learns which pages were stored to since
/// it looked last. No store has to fault for this.
///
/// What is not seen: stores through write(2); stores to private mappings; what a program stored
/// before it unmapped the file or ended; on disk file systems also what the kernel wrote back by
/// itself in between, because writing back takes the same dirty bits. The commands say where this
/// matters and what to do about it. There should be one harvest of a file at a time: each takes
/// the dirty bits from all others. The command replicate misses nothing of this, where it has a
/// tracker of the file.
///
/// The file may also be a memfd of a running program, named as /proc/PID/fd/NUMBER.
///
/// All commands but apply, plot and restore-check need root, and the modules mmops and mmops_test
/// loaded.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what the driver is and can do
    Info(Info),
    /// Take the write permission from all shared mappings of a file
    ///
    /// The next store to each page faults, and the kernel makes the page writable again. The
    /// number printed counts a page once for each mapping that lost the permission.
    WriteProtect(WriteProtect),
    /// Take the dirty bits of a file, and list the pages that were dirty
    ///
    /// Each line is a range of pages that were stored to since the last harvest: offset of the
    /// first page, number of pages, bytes. A page is dirty for all processes together, however many
    /// map it.
    ///
    /// The pages stay dirty for the kernel: on a disk file system they will be written back.
    ///
    /// On tmpfs, ext4, XFS and btrfs, and for a memfd, holes of the file are passed over: nobody
    /// can have stored to them. Elsewhere the time grows with the size of the file.
    Harvest(Harvest),
    /// Show live which pages of a file are stored to, and how many per second
    ///
    /// On a terminal: a map of the file that glows where it was stored to, and the rate over time;
    /// q or Ctrl-C ends it. Else: one line per interval.
    ///
    /// Each interval is one harvest. It takes the dirty bits, so do not watch a file that is being
    /// replicated by harvests. A tracker of it is told what a harvest takes.
    Watch(Watch),
    /// Keep a copy of a file that follows its changes
    ///
    /// First copies the whole file, then goes round after round: ask which pages changed, copy
    /// these. REPLICA is created, or overwritten. It follows the size of FILE, and what is a hole
    /// in FILE when it is copied takes no space in REPLICA.
    ///
    /// Ctrl-C (SIGINT), SIGTERM or SIGHUP ends it: the round under way is completed, then a last
    /// round is made that begins after the signal. A second signal ends it at once, and REPLICA is
    /// then of no use.
    ///
    /// What REPLICA is at the end: when nobody changes FILE from the signal on, it is identical to
    /// FILE. When changes go on, it holds every one that was made before the last round began, and
    /// some later ones: it is no snapshot of a single moment, and a page that was stored to while
    /// it was being copied can be part old, part new. A program whose file must be whole has to
    /// pause while the last round is made.
    ///
    /// Which pages changed is told by a tracker of the file, on tmpfs (and of a memfd), ramfs,
    /// ext2, ext3, ext4 and XFS, though not with DAX. It tells of stores through any mapping, also
    /// of a process that has ended, and of a virtual machine that has FILE as its memory; of
    /// write(2), holes and truncation; and it does not matter what the kernel writes back or swaps
    /// out in between. What it does not tell is rare, and listed in Documentation/track.rst: who
    /// writes to the disk below the file system, for instance, or stores through a buffer that was
    /// registered with io_uring rounds ago. --verify compares FILE and REPLICA at the end, and
    /// copies pages that differ: without any of that it finds none.
    ///
    /// For a file without such a tracker, the dirty bits of its mappings are harvested, as by the
    /// command harvest, and a line on standard error says so. They alone do not tell everything:
    /// kernel writeback, swapping, a program that unmapped the file or ended, write(2), and holes
    /// punched or a truncation undone between two rounds are not seen by a harvest. Rounds before
    /// the last can lack such pages. So FILE and REPLICA are always compared at the end then, which
    /// finds them all, and says how many there were. --no-verify leaves it out: right only for
    /// files in memory without swap, that are stored to through mappings alone, and stay mapped
    /// until mmopsctl has ended.
    ///
    /// With - as REPLICA, a stream is written to standard output, of which mmopsctl apply makes the
    /// replica, perhaps on another machine: mmopsctl replicate FILE - | ssh HOST mmopsctl apply -
    /// REPLICA. All reports go to standard error then, that of --json included. The replica is
    /// always the state after a whole round, whatever ends one of both. A second signal ends the
    /// stream within a round. When its reader goes away, the command fails, and nothing is left of
    /// it; a new stream goes on from the replica with --resume, or begins anew.
    /// Documentation/replicate-stream.rst has the format, and what a resume costs. A stream needs a
    /// tracker, or --no-verify.
    ///
    /// The exit status is 0 after the last round, 1 after an error or for options that do not go
    /// together, 2 for arguments that are no such, 3 when the reader of a stream has gone, and 130
    /// after a second signal.
    Replicate(Replicate),
    /// Make a replica from the stream of a replication
    ///
    /// STREAM is what mmopsctl replicate FILE - writes: a file, or - for standard input. REPLICA is
    /// created, or replaced when the first round of a stream that has all is whole. Neither root
    /// nor a module is needed.
    ///
    /// REPLICA is always the state after a whole round: each is on the disk in a journal before it
    /// is made in REPLICA, in the directory REPLICA.mmops, which also has the state and has to be
    /// kept for as long as REPLICA is to follow. Whatever ends the command (a stream that was cut
    /// or damaged, a signal, SIGKILL, the loss of power), no round is lost that was whole, and none
    /// is left half made: what SIGKILL or a power loss leave is completed, or dropped, by the next
    /// mmopsctl apply of REPLICA, with --recover too. Until then, REPLICA can be between two
    /// rounds. Nobody else may write to REPLICA.
    ///
    /// When a stream was cut, REPLICA keeps its last round. To go on from there, take its state, as
    /// by ssh HOST mmopsctl apply --state REPLICA >STATE, and give that to mmopsctl replicate
    /// --resume STATE.
    ///
    /// Ctrl-C (SIGINT) at the end of a pipe ends whoever writes the stream, after a last round, so
    /// apply waits for the end of the stream then; a second one, SIGTERM and SIGHUP drop the round
    /// under way and end it.
    ///
    /// The exit status is 0 at the end of the stream, 1 after an error, of the stream too, 2 for
    /// arguments that are wrong, 3 when the stream ends before its end, and 130 after a signal.
    Apply(Apply),
    /// Show which leaves map the memory of a process: their size and state
    ///
    /// A leaf is an entry of the page tables that maps memory: 4 KiB, 2 MiB or 1 GiB. Each line is
    /// a mapping: leaves of each size, how many of them are writable, dirty, young and soft-dirty,
    /// and entries that are not present (swap, migration, memory of a device, markers). hugetlbfs
    /// is left out.
    ///
    /// A PROGRAM is started, looked at after some time, and killed.
    Leaves(Leaves),
    /// Take permissions from the leaves of a process, or give them back
    ///
    /// The mappings stay as they are: an access that is not permitted faults, and the kernel
    /// permits it again. So the program notices nothing, but the leaves that are writable
    /// afterwards are those that were stored to.
    Protect(Protect),
    /// Take pages away from a process, as memory pressure would
    ///
    /// The process is one that runs (--pid), or a program that is run for it. By default all of its
    /// shared mappings are emptied: it finds its pages again, with all that it stored, by page
    /// faults. A program is emptied again and again until it ends; its own data are not changed by
    /// it, so a program that goes wrong then relies on something that nobody promised.
    ///
    /// With --range, exactly these addresses are emptied, whatever is there. Private memory is lost
    /// then: it reads as zeros, or as what the file has.
    ///
    /// Each line is one turn: pages that were taken, and how long that took. Ends with an error if
    /// the program does.
    Zap(Zap),
    /// Draw the rounds of one or more replications as an SVG picture
    ///
    /// Each log is one that the option --log of replicate wrote, and becomes one diagram: the pages
    /// copied in each round, with those of a full copy for comparison.
    Plot(Plot),
    /// See how many pages of its memory a process changes in each interval
    ///
    /// The process is not stopped, a store costs it no page fault (unless --full asks for it), and
    /// nothing that it or others could see is changed: dirty bits are taken from its page tables,
    /// and what becomes of an entry whose dirty bit goes another way is told to the driver by the
    /// kernel.
    ///
    /// A page counts as written when a store to it was seen, or one to another page of the same
    /// huge page. It counts as changed when nobody knows: it is new, or was swapped out, moved,
    /// merged or copied for a child. A page that a device or a virtual machine has pinned counts in
    /// each interval, and so do hugetlbfs, DAX and memory of a device. Of a process that is named
    /// by its number, what it did before is not told; of a program that is run, all that is there
    /// at the end of the first interval counts.
    ///
    /// Not seen is what does not go through the page tables of the process: stores by ptrace(2),
    /// /proc/PID/mem and process_vm_writev(2), by a virtual machine, by a device whose pin does not
    /// last to the end of the interval, unless --full asks for it; and changes of a mapped file by
    /// others. Nor what was stored to memory that is gone by the end of the interval, or after the
    /// last one.
    ///
    /// The report is a table on standard output, unless --json or --output asks for another form. A
    /// program that fails makes the command fail. Ctrl-C ends it for a process that is named by its
    /// number.
    Track(Track),
    /// Copy the memory of a process that runs, and stop it for the last pages only
    ///
    /// All of the memory is copied while the process runs, then, in rounds, the pages that changed
    /// since. When a round has few pages, or no fewer than the one before, all threads of the
    /// process are held, the last pages are copied, and it goes on. So DIR has the memory as it was
    /// at one moment, and the pause is as long as the last round.
    ///
    /// The process is held as by a debugger (PTRACE_SEIZE), once: it gets no signal, its parent
    /// does not see it stop, SIGCONT by others does not let it go, and one that has stopped stays
    /// stopped. As a stop does, this can end a wait of it with EINTR: signal(7) names the system
    /// calls, epoll_wait(2) among them. The process goes on when mmopsctl ends, however that comes,
    /// SIGKILL included. While mmopsctl is stopped itself (Ctrl-Z) or waits for a disk, it waits,
    /// too. A process that has a debugger cannot be held. Others that share its memory (a child of
    /// vfork(2), CLONE_VM) are not held, nor is what a device stores by itself.
    ///
    /// What is taken: private mappings that can be read and written, and shared ones that can be
    /// read. Memory of the kernel ([vdso], [vvar], [vsyscall]) and of devices is left out, and
    /// named. Memory that the process has never used is not touched, but that of hugetlbfs which is
    /// shared: to read it takes a huge page for each that was not there. Of private memory of
    /// hugetlbfs, a page that is under migration at that moment, or whose memory has failed, is
    /// taken for one that was never used, since /proc/PID/pagemap does not tell them apart.
    ///
    /// DIR is created, or empty, for its owner alone. It gets one file for the contents of each
    /// mapping, with a hole where there are zeros, and, when all of these are on the disk, the file
    /// index.json: an object with the members format ("mmops-snapshot"), version (1), pid,
    /// page_size, mappings and left_out. A mapping has start and end (in hexadecimal), permissions,
    /// offset and path as in /proc/PID/maps, contents (name of the file), unreadable (an array of
    /// start and end: pages that could not be read, such as guard pages) and digest; one that was
    /// left out has start, end, path and reason. Without index.json it is no snapshot.
    ///
    /// A digest is BLAKE3, in hexadecimal. It is over each page of the mapping that is not of zeros
    /// alone, in ascending order: its number in the mapping, as 8 bytes with the lowest first, and
    /// its bytes. Snapshots that an older mmopsctl has made have none. Who reads the index passes
    /// over members that it does not know: where one comes to mean something else, version has
    /// another number.
    ///
    /// The exit status is 0 if there is a snapshot, and 1 if there is none: the process has ended,
    /// may not be traced or cannot be held; a page differed with --verify; Ctrl-C (SIGINT), SIGTERM
    /// or SIGHUP. What was written is removed then. It is 2 for arguments that are wrong, and 130
    /// after a second signal, which leaves files and no index.
    Snapshot(Snapshot),
    /// Check whether a snapshot is whole, and make a core file of it
    ///
    /// DIR is what mmopsctl snapshot has written. It is whole if index.json has what the format
    /// asks for and makes sense, and if the file of each mapping is there, has the length and the
    /// digest of the mapping, and zeros for what could not be read. Nothing else may be in DIR. A
    /// snapshot without digests, which an older mmopsctl has made, cannot be checked, and is
    /// refused. What the index says besides of a mapping (permissions, offset, path) has no digest:
    /// only its form is checked. Damage is found by this, but not what somebody has forged.
    ///
    /// --core writes what was checked as an ELF core file, that debuggers open: gdb -c FILE. It has
    /// a segment for each mapping, at the address that it had, with holes where there are zeros,
    /// and tells which files were mapped (NT_FILE). A snapshot has memory alone, so there are no
    /// registers and no threads in it, of which gdb warns; nor is there what was not copied, such
    /// as the instructions of the program. What could not be read is zero.
    ///
    /// Nothing puts a snapshot back into a process. Neither root nor a module is needed.
    ///
    /// The exit status is 0 if it is whole, and 1 if not, with the first fault that was found, or
    /// after Ctrl-C (SIGINT), SIGTERM or SIGHUP; there is no core file then. It is 2 for arguments
    /// that are wrong, and 130 after a second signal, which leaves FILE.part.
    RestoreCheck(RestoreCheck),
    /// See which pages of its own memory a program stores to
    ///
    /// Soft-dirty bits tell for each page of a process whether it was stored to since they were
    /// cleared: private memory as well, unlike the dirty bits that the other commands take.
    #[command(subcommand)]
    SoftDirty(SoftDirty),
    /// Print what a driver would be told about the memory of a program, live
    ///
    /// A driver that mirrors the page tables of a process (shared virtual memory) is told by the
    /// kernel about each range that is about to change, and has to stop using it. The command runs
    /// PROGRAM, subscribes to its address space before its first instruction, and prints what it
    /// hears: when, which event, and which addresses. At the end it prints on standard error how
    /// often each event came, and over how many pages.
    ///
    /// The events are those of the kernel's enum mmu_notifier_event. They end with the address
    /// space: when PROGRAM exits, or executes another program, whose end is waited for then.
    /// Children that PROGRAM forks have address spaces of their own and are not heard.
    NotifierTrace(NotifierTrace),
    /// Hold the threads of a process, on command; soft-dirty runs this
    #[command(hide = true)]
    Hold(Hold),
    /// Write the manual pages to a directory
    #[command(hide = true)]
    GenMan {
        /// Directory, created if need be
        dir: PathBuf,
    },
    /// Print the manual in reStructuredText
    #[command(hide = true)]
    GenRst,
}

#[derive(Debug, Args)]
pub struct Info {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which pages of a file.
#[derive(Debug, Args)]
pub struct Pages {
    /// Offset of the first page, in pages
    #[arg(long, value_name = "PAGE", default_value_t = 0)]
    pub first: u64,
    /// Number of pages [default: up to the end of the file]
    #[arg(long, value_name = "PAGES", value_parser = clap::value_parser!(u64).range(1..))]
    pub nr: Option<u64>,
}

/// How huge pages are treated.
#[derive(Clone, Copy, Debug, Args)]
pub struct Huge {
    /// Split huge mappings first, so that later stores are seen page by page
    ///
    /// Without it, a store anywhere in a huge mapping makes all its pages dirty.
    #[arg(long)]
    pub split: bool,
}

#[derive(Debug, Args)]
pub struct WriteProtect {
    /// File that programs map shared
    pub file: PathBuf,
    #[command(flatten)]
    pub pages: Pages,
    #[command(flatten)]
    pub huge: Huge,
}

#[derive(Debug, Args)]
pub struct Harvest {
    /// File that programs map shared
    pub file: PathBuf,
    #[command(flatten)]
    pub pages: Pages,
    #[command(flatten)]
    pub huge: Huge,
    /// Print JSON
    ///
    /// One object with the members file, page_size, first, nr, dirty_pages, dirty_bytes, cleaned
    /// (entries that lost their dirty bit, over all mappings), calls (of the driver) and ranges, an
    /// array of pairs of first page and number of pages.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Watch {
    /// File that programs map shared
    pub file: PathBuf,
    /// Time from one harvest to the next, such as 100ms or 2s
    #[arg(long, value_name = "TIME", default_value = "500ms",
          value_parser = humantime::parse_duration)]
    pub interval: Duration,
    /// End after this number of harvests [default: when told to]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: Option<u64>,
    #[command(flatten)]
    pub huge: Huge,
}

#[derive(Debug, Args)]
pub struct Replicate {
    /// File that programs change
    pub file: PathBuf,
    /// Regular file that becomes the copy; or - to write a stream to standard output
    pub replica: PathBuf,
    /// Time from the start of one round to that of the next, such as 100ms or 2s
    #[arg(long, value_name = "TIME", default_value = "1s",
          value_parser = humantime::parse_duration)]
    pub interval: Duration,
    /// End after this number of rounds [default: when told to]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: Option<u64>,
    /// Compare the whole of both files at the end, also where a tracker makes that needless
    #[arg(long, conflicts_with = "no_verify")]
    pub verify: bool,
    /// Do not compare both files at the end; see above for what that needs without a tracker
    #[arg(long)]
    pub no_verify: bool,
    /// Harvest dirty bits, also where there could be a tracker
    ///
    /// --split needs it: a tracker takes huge mappings as they are.
    #[arg(long)]
    pub harvest: bool,
    #[command(flatten)]
    pub huge: Huge,
    /// Print the report as JSON on standard output
    ///
    /// One object; its member per_round is an array with one object for each round, and changes_by
    /// is "tracker" or "harvests". With a stream it goes to standard error, as its last line.
    #[arg(long)]
    pub json: bool,
    /// Let a stream go on from a replica: send first what differs from it
    ///
    /// STATE is what mmopsctl apply --state has printed; - is standard input. All of FILE is read,
    /// and blocks of 64 KiB are sent whose digests differ.
    #[arg(long, value_name = "STATE")]
    pub resume: Option<PathBuf>,
    /// Write each step to this file as it is made, one JSON object per line
    #[arg(long, value_name = "LOG")]
    pub log: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct Apply {
    /// Stream to read; - is standard input
    #[arg(required_unless_present_any = ["state", "recover"])]
    pub stream: Option<PathBuf>,
    /// Regular file that becomes the copy
    #[arg(required_unless_present_any = ["state", "recover"])]
    pub replica: Option<PathBuf>,
    /// Print the state of a replica, for --resume of replicate
    ///
    /// It has the number of the stream, the round, and digests of blocks: some 0.05 % of the data.
    /// All data of the replica are read. A file that was copied in another way gets a state by
    /// this, and can be gone on from.
    #[arg(long, value_name = "REPLICA", conflicts_with_all = ["stream", "replica", "recover"])]
    pub state: Option<PathBuf>,
    /// Complete or drop the round that was under way when apply was killed, and do nothing else
    #[arg(long, value_name = "REPLICA", conflicts_with_all = ["stream", "replica"])]
    pub recover: Option<PathBuf>,
    /// Print the report as JSON
    ///
    /// One object with the members replica, stream, round, size, is_pending (false), rounds and
    /// bytes (of this stream).
    #[arg(long, conflicts_with = "state")]
    pub json: bool,
    /// Print nothing but the report
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct Leaves {
    /// Process
    #[arg(required_unless_present = "command", conflicts_with = "command")]
    pub pid: Option<u32>,
    /// Program to start, with its arguments
    #[arg(last = true, value_name = "PROGRAM")]
    pub command: Vec<String>,
    /// Time that a program runs before it is looked at
    #[arg(long, value_name = "TIME", default_value = "1s",
          value_parser = humantime::parse_duration)]
    pub after: Duration,
    /// Print JSON: an array with one object for each mapping
    ///
    /// What the program prints goes to standard error then.
    #[arg(long)]
    pub json: bool,
    /// Draw a picture, too
    #[arg(long, short, value_name = "SVG")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Protect {
    /// Process
    pub pid: u32,
    /// Addresses in hexadecimal: START-END, or START+LENGTH
    #[arg(value_parser = crate::address::parse_range)]
    pub range: std::ops::Range<u64>,
    /// What to permit: what the mappings allow, the same without w, or none
    #[arg(value_parser = crate::protect::parse_access)]
    pub access: u32,
}

#[derive(Debug, Args)]
pub struct Zap {
    /// Process to take pages from
    #[arg(long, value_name = "PID", conflicts_with = "program")]
    pub pid: Option<u32>,
    /// Addresses to empty, in hexadecimal as in /proc/PID/maps; may be given again [default: all
    /// shared mappings]
    #[arg(long, value_name = "START-END", value_parser = crate::address::parse_range)]
    pub range: Vec<std::ops::Range<u64>>,
    /// Time between two turns, such as 100ms or 2s
    #[arg(long, value_name = "TIME", default_value = "1s",
          value_parser = humantime::parse_duration)]
    pub interval: Duration,
    /// End after this number of turns [default: 1 with --pid, else when the program ends]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: Option<u64>,
    /// Print JSON
    ///
    /// One object with the members pid, page_size, turns (an array of objects with time, ranges,
    /// zapped_pages and seconds) and exit_status. What the program prints goes to standard error
    /// then.
    #[arg(long)]
    pub json: bool,
    /// Program to run, with its arguments
    #[arg(value_name = "PROGRAM", trailing_var_arg = true)]
    pub program: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Plot {
    /// Logs of replications
    #[arg(required = true, value_name = "LOG")]
    pub logs: Vec<PathBuf>,
    /// Picture to write
    #[arg(long, short, value_name = "SVG")]
    pub output: PathBuf,
}

#[derive(Debug, Args)]
pub struct Track {
    /// Number of the process
    #[arg(required_unless_present = "program", conflicts_with = "program")]
    pub pid: Option<u32>,
    /// Time from one look to the next, such as 100ms or 2s
    #[arg(long, value_name = "TIME", default_value = "500ms",
          value_parser = humantime::parse_duration)]
    pub interval: Duration,
    /// End after this number of intervals [default: when the process ends, or when told to]
    #[arg(long, value_name = "NUMBER", conflicts_with = "program",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: Option<u64>,
    /// See stores that do not go through the page tables of the process, too
    ///
    /// The first store to a page in each interval costs a page fault then, whoever makes it. Pages
    /// that are mapped writable without a store, or whose permissions change, count as changed.
    #[arg(long)]
    pub full: bool,
    /// Print JSON, one object per line
    ///
    /// For each interval one with the members interval, seconds (since the start), pages, bytes,
    /// written and changed (of the pages), pinned (of those written), new (of those changed:
    /// nothing was there before), gone (not of the pages: nothing is there any more), kept (pages
    /// of mappings of more than 64 GiB, which are not tracked) and mappings: an array of objects
    /// with start, end, name and pages, for each mapping that has some. At the end one with
    /// intervals, pages, bytes and status, the exit status of the program, null if a signal ended
    /// it or it was not run. What the program prints goes to standard error then.
    #[arg(long)]
    pub json: bool,
    /// Draw the pages of each interval to this SVG picture, and print no table
    #[arg(long, short, value_name = "SVG")]
    pub output: Option<PathBuf>,
    /// Program to run, and its arguments
    #[arg(last = true, value_name = "PROGRAM")]
    pub program: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Snapshot {
    /// Number of the process
    pub pid: u32,
    /// Directory to write to
    pub dir: PathBuf,
    /// Stop the process when a round has copied at most so many pages
    #[arg(long, value_name = "PAGES", default_value_t = 1024)]
    pub pause_pages: u64,
    /// Stop the process after this number of rounds at the latest
    #[arg(long, value_name = "NUMBER", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: u64,
    /// See stores that do not go through the page tables of the process, too: the default
    ///
    /// Such are those by ptrace(2), /proc/PID/mem and process_vm_writev(2), by a virtual machine,
    /// and by a device whose pin does not last. A page that is missed is wrong in the snapshot, so
    /// this is the default, though the first store to each page costs a page fault in each round.
    #[arg(long, overrides_with = "fast")]
    pub full: bool,
    /// Do without these page faults, and miss such stores
    ///
    /// Right only for a process that nobody debugs, that runs no virtual machine, and that neither
    /// reads with O_DIRECT nor has devices or io_uring store to its memory.
    #[arg(long)]
    pub fast: bool,
    /// Rely on the trackers for memory that maps a file, too
    ///
    /// What others do to such a file (other processes that map it, write(2)) changes the memory of
    /// this process, and no tracker of this process tells. So all that maps a file, memfd and
    /// shared anonymous memory included, is read once more while the process is stopped. With this
    /// option it is not, and the pause is shorter: right if nobody else changes these files.
    #[arg(long)]
    pub trust_files: bool,
    /// Compare all that was copied with the memory, before the process goes on
    ///
    /// Tells how many pages differ. None does, unless an option asks for less than the default, or
    /// somebody stores to the memory who is not held: a device, or a process that shares it. If
    /// some do, the command fails, and there is no snapshot. The pause gets longer by it.
    #[arg(long)]
    pub verify: bool,
    /// Print the report as JSON on standard output
    ///
    /// One object with the members pid, dir, page_size, mode, mappings, left_out, unreadable
    /// (pages), pages and bytes (copied in all), rounds, pause_seconds, seconds, verify and
    /// per_round. verify is null or has pages, differed and first (address of a page that does).
    /// per_round has for each round pages, bytes, seconds, is_last, and reread (of the pages, those
    /// of files that only reading them once more has found).
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
    /// For the tests: lose what the last round would copy
    #[arg(long, hide = true)]
    pub lose_last_round: bool,
}

#[derive(Debug, Args)]
pub struct RestoreCheck {
    /// Directory with the snapshot
    pub dir: PathBuf,
    /// Print the report as JSON on standard output
    ///
    /// One object with the members dir, pid, page_size, mappings, left_out, unreadable (pages),
    /// size (bytes of all mappings), pages and bytes (of those that are not of zeros alone), and
    /// core (FILE, or null).
    #[arg(long)]
    pub json: bool,
    /// Write a core file, too
    ///
    /// It is for its owner alone. FILE must not be there, and is only when it is whole.
    #[arg(long, value_name = "FILE")]
    pub core: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum SoftDirty {
    /// Run a program, and tell how many pages it stores to in each interval
    ///
    /// At the end of an interval all threads of the program are held, as by a debugger, without a
    /// signal (PTRACE_SEIZE); its soft-dirty bits are read and cleared, and it goes on. So each
    /// store counts, but for those after the last look: in one interval, or in two where it is held
    /// between the page fault of the store and the store. Processes that the program starts are not
    /// followed.
    ///
    /// As a stop does, being held can end a wait of the program with EINTR: signal(7) names the
    /// system calls, epoll_wait(2) among them. A program that has stopped (SIGSTOP, Ctrl-Z) stays
    /// stopped, and when mmopsctl ends, however that comes, the kernel lets the program go on. When a thread cannot be held, because it has
    /// a tracer or waits in the kernel (for a child of vfork(2), for instance), nobody is held, and
    /// the interval goes on until the next look.
    ///
    /// A page that is new counts when it is there, stored to or only read. What cannot be tracked
    /// (hugetlbfs, mappings of device memory) does not count.
    ///
    /// The report is a table on standard output, unless --json or --output asks for another form. A
    /// program that fails makes the command fail.
    Run(SoftDirtyRun),
    /// Clear the soft-dirty bits of a process, all or of a range of addresses
    Clear(SoftDirtyClear),
}

#[derive(Debug, Args)]
pub struct SoftDirtyRun {
    /// Time from one look to the next, such as 100ms or 2s
    #[arg(long, value_name = "TIME", default_value = "500ms",
          value_parser = humantime::parse_duration)]
    pub interval: Duration,
    /// Print JSON, one object per line
    ///
    /// For each interval one with the members interval, seconds (since the start), pages, bytes,
    /// kept (pages that cannot be tracked) and mappings: an array of objects with start, end, name
    /// and pages, for each mapping that was stored to. At the end one with intervals, pages, bytes
    /// and status, the exit status of the program, null if a signal ended it. What the program
    /// prints goes to standard error then.
    #[arg(long)]
    pub json: bool,
    /// Draw the pages of each interval to this SVG picture, and print no table
    #[arg(long, short, value_name = "SVG")]
    pub output: Option<PathBuf>,
    /// Program to run, and its arguments
    #[arg(required = true, last = true, value_name = "PROGRAM")]
    pub program: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub struct Hold {
    /// Number of the process
    pub pid: i32,
}

#[derive(Debug, Args)]
pub struct SoftDirtyClear {
    /// Number of the process
    pub pid: u32,
    /// First address and first address behind, in hexadecimal as in /proc/PID/maps
    #[arg(long, value_name = "START-END", value_parser = address_range)]
    pub range: Option<(u64, u64)>,
}

fn address_range(text: &str) -> Result<(u64, u64), String> {
    let number = |text: &str| {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        u64::from_str_radix(digits, 16).map_err(|error| format!("{text}: {error}"))
    };
    let (start, end) = text.split_once('-').ok_or("not of the form START-END")?;
    let (start, end) = (number(start)?, number(end)?);
    if start < end {
        Ok((start, end))
    } else {
        Err("the range is empty".into())
    }
}

#[derive(Debug, Args)]
pub struct NotifierTrace {
    /// Print JSON, one object per line
    ///
    /// Members: time (seconds since the subscription), event, start and end (addresses), pages,
    /// is_end (whether it is the end of an invalidation), and blockable (whether a driver may
    /// sleep). Without --output, what the program prints goes to standard error then.
    #[arg(long)]
    pub json: bool,
    /// Print the ends of invalidations as well as their beginnings
    #[arg(long)]
    pub ends: bool,
    /// Write to this file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Program to run, and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub program: Vec<OsString>,
}
