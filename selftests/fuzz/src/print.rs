// SPDX-License-Identifier: GPL-2.0

//! A program as one in C.

use std::fmt::Write;

use mmops_raw::sandbox::{Life, Place, Span, PAGE};

use crate::action::{Action, What};
use crate::program::Program;
use crate::world::fds;

/// What does not change from program to program.
const PRELUDE: &str = include_str!("prelude.c");

/// A number, as one reads it best.
fn number(text: &str) -> String {
    match text.parse::<u64>() {
        Ok(number @ 4096..) => format!("{number:#x}"),
        _ => text.to_owned(),
    }
}

/// A structure as Rust prints it: its name, and what is not zero of it as an initializer in C.
fn structure(debug: &str) -> (&str, String) {
    let (name, fields) = debug.split_once(" { ").unwrap_or((debug, ""));
    let fields = fields.strip_suffix(" }").unwrap_or(fields);
    // A comma in an array has no name in front of its successor.
    let mut values: Vec<(&str, Vec<&str>)> = Vec::new();
    for part in fields.split(", ") {
        match (part.split_once(": "), values.last_mut()) {
            (Some((field, value)), _) => values.push((field, vec![value])),
            (None, Some((_, array))) => array.push(part),
            (None, None) => {}
        }
    }
    let mut text = String::new();
    for (field, array) in values {
        let unit = |value: &str| {
            let value = value.trim_matches(['[', ']']);
            let value = value
                .strip_prefix("Bytes(")
                .or(value.strip_prefix("Pages("));
            value.map(|value| value.trim_end_matches(')').to_owned())
        };
        let plain = |value: &&str| {
            number(&unit(value).unwrap_or_else(|| value.trim_matches(['[', ']']).to_owned()))
        };
        let numbers: Vec<_> = array.iter().map(plain).collect();
        if numbers.iter().all(|number| number == "0") {
            continue;
        }
        let numbers = numbers.join(", ");
        let value = match array[0].starts_with('[') {
            true => format!("{{ {numbers} }}"),
            false => numbers,
        };
        let _ = write!(text, ".{field} = {value}, ");
    }
    (name, text.trim_end_matches([',', ' ']).to_owned())
}

fn of(span: Span) -> String {
    format!("{:#x}, {:#x}", span.addr, span.len)
}

/// An action as a statement.
fn statement(action: &Action) -> String {
    let flag = |flag: bool| i32::from(flag);
    let show = |call: String| format!("SHOW({call});");
    let file = |file: usize| fds::FILES + file as i32;
    match *action {
        Action::Ioctl {
            file,
            request,
            place,
            ..
        } => {
            let debug = request.argument();
            let (name, fields) = structure(&debug);
            let device = match request.device() {
                "mmops" => format!("mmops[{file}]"),
                other => other.to_owned(),
            };
            match place {
                Place::Memory => format!(
                    "IOCTL(\"{}\", {device}, {:#x}, struct {name}, {fields});",
                    request.name(),
                    request.number()
                ),
                Place::Nowhere => show(format!(
                    "ioctl({device}, {:#x}, {PAGE:#x}) /* {} */",
                    request.number(),
                    request.name()
                )),
            }
        }
        Action::Map(Span { addr, len }, what, prot, populate) => {
            let (flags, fd, page) = match what {
                What::Anonymous => ("MAP_PRIVATE | MAP_ANONYMOUS", -1, 0),
                What::SharedAnonymous => ("MAP_SHARED | MAP_ANONYMOUS", -1, 0),
                What::Shared(number, page) => ("MAP_SHARED", file(number), page),
                What::Private(number, page) => ("MAP_PRIVATE", file(number), page),
            };
            let populate = if populate { " | MAP_POPULATE" } else { "" };
            show(format!(
                "mmap((void *){addr:#x}, {len:#x}, {prot}, {flags} | MAP_FIXED{populate}, {fd}, \
                 {:#x})",
                page * PAGE
            ))
        }
        Action::MapBig(prot) => show(format!("map_big({prot})")),
        Action::Unmap(span) => show(format!("munmap((void *){})", of(span))),
        Action::Protect(span, prot) => show(format!("mprotect((void *){}, {prot})", of(span))),
        Action::Remap(from, to) => show(format!(
            "mremap((void *){}, {:#x}, MREMAP_MAYMOVE | MREMAP_FIXED, (void *){:#x})",
            of(from),
            to.len,
            to.addr
        )),
        Action::Advise(span, advice) => show(format!("madvise((void *){}, {advice})", of(span))),
        Action::Lock(span, true) => show(format!("mlock((void *){})", of(span))),
        Action::Lock(span, false) => show(format!("munlock((void *){})", of(span))),
        Action::Sync(span) => show(format!("msync((void *){}, MS_SYNC)", of(span))),
        Action::Store(span) => show(format!("touch(SYS_preadv, {})", of(span))),
        Action::Load(span) => show(format!("touch(SYS_pwritev, {})", of(span))),
        Action::StoreByForce(addr) => show(format!("pwrite(memory, \"mmops!!\", 8, {addr:#x})")),
        Action::Fork(span, life) => show(format!(
            "child({}, {})",
            of(span),
            flag(life == Life::Stays)
        )),
        Action::Kill(child) => show(format!("kill_child({child})")),
        Action::Truncate(number, pages) => {
            show(format!("ftruncate({}, {:#x})", file(number), pages * PAGE))
        }
        Action::Punch(number, first, nr) => show(format!(
            "fallocate({}, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, {:#x}, {:#x})",
            file(number),
            first * PAGE,
            nr * PAGE
        )),
        Action::Write(number, page) => show(format!(
            "pwrite({}, \"mmops!!\", 8, {:#x})",
            file(number),
            page * PAGE
        )),
        Action::Poll(file) => show(format!(
            "poll(&(struct pollfd){{ mmops[{file}], POLLIN | POLLOUT }}, 1, 1)"
        )),
        Action::Register(span, wp_async, missing, wp) => show(format!(
            "userfault({}, {}, {}, {})",
            of(span),
            flag(wp_async),
            flag(missing),
            flag(wp)
        )),
        Action::Unregister(span) => show(format!("userfault_end({})", of(span))),
        Action::WriteProtect(span, protect) => {
            show(format!("userfault_wp({}, {})", of(span), flag(protect)))
        }
        Action::Zero(span) => show(format!("userfault_zero({})", of(span))),
        Action::Copy(from, to) => show(format!(
            "userfault_copy({:#x}, {:#x}, {:#x})",
            from.addr,
            to.addr,
            to.len.min(from.len)
        )),
    }
}

/// The program in C.
pub fn in_c(program: &Program) -> String {
    let mut text = PRELUDE.to_owned();
    let threads = program.threads();
    let steps = program.steps();
    for thread in 0..threads {
        let _ = writeln!(text, "\nstatic void *thread{thread}(void *arg)\n{{");
        let _ = writeln!(text, "\tpthread_barrier_wait(&begin);");
        for step in steps.iter().filter(|step| step.thread == thread) {
            let _ = writeln!(text, "\t{}", statement(&step.action));
        }
        let _ = writeln!(text, "\treturn NULL;\n}}");
    }
    let _ = writeln!(
        text,
        "\nint main(void)\n{{\n\tpthread_t threads[{threads}];\n"
    );
    let _ = writeln!(text, "\tsetup();");
    for action in program.layout() {
        let _ = writeln!(text, "\t{}", statement(&action));
    }
    let _ = writeln!(text, "\tpthread_barrier_init(&begin, NULL, {threads});");
    for thread in 0..threads {
        let create = format!("pthread_create(&threads[{thread}], NULL, thread{thread}, NULL)");
        let _ = writeln!(text, "\t{create};");
    }
    for thread in 0..threads {
        let _ = writeln!(text, "\tpthread_join(threads[{thread}], NULL);");
    }
    text + "\tkill_child(0);\n\tkill_child(1);\n\treturn 0;\n}\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::ChaCha8Rng;
    use rand::SeedableRng;
    use std::path::Path;
    use std::process::Command;

    #[test]
    fn structures_are_initialized() {
        let debug = "mmops_zap { pidfd: -1, flags: 0, addr: 8589934592, done: Bytes(0), \
                     reserved: [0, 7] }";
        let expected = ".pidfd = -1, .addr = 0x200000000, .reserved = { 0, 7 }";
        assert_eq!(structure(debug), ("mmops_zap", expected.to_owned()));
    }

    /// What is printed compiles. `CC` names another compiler than `cc`.
    #[test]
    fn programs_compile() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let rng = &mut ChaCha8Rng::seed_from_u64(3);
        let source = std::env::temp_dir().join(format!("mmops-fuzz-{}.c", std::process::id()));
        for _ in 0..8 {
            std::fs::write(&source, in_c(&Program::random(rng))).unwrap();
            let status = Command::new(std::env::var("CC").unwrap_or("cc".into()))
                .args(["-D_GNU_SOURCE", "-fsyntax-only", "-Werror=implicit"])
                .args(
                    ["include/uapi", "selftests/modules/mmops_walk"].map(|dir| format!("-I{dir}")),
                )
                .arg("-Iselftests/modules/mmops_leafmap")
                .arg(&source)
                .current_dir(&top)
                .status()
                .unwrap();
            assert!(status.success(), "{}", source.display());
        }
        std::fs::remove_file(&source).unwrap();
    }
}
