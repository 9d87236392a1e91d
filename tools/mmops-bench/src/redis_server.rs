// SPDX-License-Identifier: GPL-2.0

//! A redis-server, and its one client.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use nix::sched::sched_getcpu;
use tempfile::TempDir;

use crate::bench::Missing;

/// Names the program.
const REDIS: &str = "MMOPS_REDIS";
/// What an answer may take at the most: the machine may be slow, and have other things to do.
const PATIENCE: Duration = Duration::from_secs(600);

/// The answer to a `SET`.
const OK: &[u8] = b"+OK\r\n";

/// A server without persistence, with one client.
pub struct Server {
    child: Child,
    stream: BufReader<UnixStream>,
    /// With its socket.
    _directory: TempDir,
}

/// Ends the server where it is not asked to.
struct Killed(Option<Child>);

impl Drop for Killed {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            end(child);
        }
    }
}

fn end(child: &mut Child) {
    // It is gone already, or will be.
    let _ = child.kill();
    let _ = child.wait();
}

impl Server {
    /// Starts it on another processor than that of the program; `spawn` runs the command.
    pub fn start(spawn: impl FnOnce(&mut Command) -> Result<Child>) -> Result<Self> {
        let Some(program) = env::var_os(REDIS) else {
            let advice = "no redis-server: install Debian's package redis-tools";
            return Err(Missing(advice.into()).into());
        };
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        let socket = directory.path().join("socket");
        let cpu = u32::from(sched_getcpu().context("sched_getcpu")? == 0).to_string();
        let mut command = Command::new(&program);
        command
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            // The less it does by itself, the better.
            .args(["--hz", "1", "--enable-debug-command", "local"])
            .args(["--server_cpulist", &cpu, "--bio_cpulist", &cpu])
            // It is to read no file of the host, as bench.sh says.
            .env_clear()
            .envs([("TZ", "UTC0"), ("OPENSSL_CONF", "/dev/null")])
            .envs(env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH", path)))
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = spawn(&mut command).context("cannot run redis-server")?;
        let mut killed = Killed(Some(child));
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            if let Ok(stream) = UnixStream::connect(&socket) {
                break stream;
            }
            if let Some(status) = killed.0.as_mut().and_then(|child| child.try_wait().ok()?) {
                bail!("redis-server ended: {status}");
            }
            ensure!(Instant::now() < deadline, "redis-server does not answer");
            thread::sleep(Duration::from_millis(20));
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            child: killed.0.take().context("it is there")?,
            stream: BufReader::new(stream),
            _directory: directory,
        })
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it execute a command that is answered by a line.
    pub fn execute(&mut self, words: &[&str]) -> Result<String> {
        let mut text = Vec::new();
        put(&mut text, words);
        self.stream.get_ref().write_all(&text)?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer).context("no answer")?;
        ensure!(answer.starts_with('+'), "{words:?}: {}", answer.trim_end());
        Ok(answer)
    }

    /// Has it execute so many `SET`, one behind the other, so that it never waits for one. Returns
    /// the time from the first to the last answer.
    pub fn set_all(&mut self, sets: &[u8], number: usize) -> Result<Duration> {
        let mut answers = vec![0; number * OK.len()];
        let start = Instant::now();
        let mut writer = self.stream.get_ref().try_clone()?;
        thread::scope(|scope| {
            let written = scope.spawn(move || writer.write_all(sets));
            let read = self.stream.read_exact(&mut answers);
            let time = start.elapsed();
            let written = written.join().expect("it does not panic");
            written.and(read).context("redis-server")?;
            let is_ok = answers.chunks(OK.len()).all(|answer| answer == OK);
            ensure!(is_ok, "a SET was refused");
            Ok(time)
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Appends a command, as redis reads it.
pub fn put(text: &mut Vec<u8>, words: &[&str]) {
    text.extend(format!("*{}\r\n", words.len()).bytes());
    for word in words {
        text.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_lengths() {
        let mut text = Vec::new();
        put(&mut text, &["SET", "key:1", ""]);
        assert_eq!(text, b"*3\r\n$3\r\nSET\r\n$5\r\nkey:1\r\n$0\r\n\r\n");
    }
}
