// SPDX-License-Identifier: GPL-2.0

//! Makes the kernel's C functions on page-table values callable from user space: those of the
//! modules that were built (`MMOPS_MODULES`), from the bitcode that is linked into `mmops.ko`.
//! They compute on values, and need nothing else of the kernel.

use anyhow::{
    bail,
    ensure,
    Context as _,
    Result, //
};
use quote::ToTokens as _;
use std::{
    collections::BTreeSet,
    env,
    fs,
    path::{
        Path,
        PathBuf, //
    },
    process::Command, //
};

/// The sources that call such functions.
const CALLERS: [&str; 3] = [
    "pgtable/level.rs",
    "pgtable/value.rs",
    "pgtable/soft_leaf.rs",
];

fn main() -> Result<()> {
    println!("cargo::rustc-check-cfg=cfg(CONFIG_X86_64)");
    println!("cargo::rustc-cfg=CONFIG_X86_64");
    println!("cargo::rerun-if-env-changed=MMOPS_MODULES");
    let modules = env::var_os("MMOPS_MODULES")
        .context("MMOPS_MODULES has to name the modules that were built; see testing.rst")?;
    let built = PathBuf::from(modules).join("rust");
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let bindings = built.join("bindings_generated.rs");
    let bitcode = built.join("helpers.bc");

    for file in [&bindings, &bitcode] {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    let mut called = BTreeSet::new();
    for caller in CALLERS {
        let path = top.join("rust").join(caller);

        println!("cargo::rerun-if-changed={}", path.display());
        called.extend(
            fs::read_to_string(path)?
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .map(str::to_owned),
        );
    }

    let declared = declare(&fs::read_to_string(bindings)?, &called, &out)?;

    link(&top, &bitcode, &declared, &out)
}

/// Writes the constants, and the declarations of the functions that are called. Gives the names of
/// those that compute on entries; the others, which the tests do not call, take a VMA or an mm.
fn declare(bindings: &str, called: &BTreeSet<String>, out: &Path) -> Result<Vec<String>> {
    let (mut text, mut declared) = (String::new(), Vec::new());

    for item in syn::parse_file(bindings)?.items {
        match &item {
            syn::Item::Const(item) if matches!(*item.expr, syn::Expr::Lit(_)) => {
                // Of plain numbers: of others the type is not known here.
                let ty = item.ty.to_token_stream().to_string();
                if ty == "u32" || ty.starts_with("ffi ::") || ty == "softleaf_type" {
                    text += &item.to_token_stream().to_string();
                    text.push('\n');
                }
            }
            syn::Item::ForeignMod(block) => {
                for function in &block.items {
                    if let syn::ForeignItem::Fn(function) = function {
                        let name = function.sig.ident.to_string();
                        if called.contains(&name) {
                            let signature = function.sig.to_token_stream().to_string();

                            text += &item.to_token_stream().to_string();
                            text.push('\n');
                            if !signature.contains("_struct") {
                                declared.push(name);
                            }
                        }
                    }
                }
            }
            _ => {}
        }
    }
    ensure!(declared.len() > 40, "only {declared:?} are declared");
    fs::write(out.join("bindings.rs"), text)?;
    Ok(declared)
}

/// Links the functions of that name.
fn link(top: &Path, bitcode: &Path, names: &[String], out: &Path) -> Result<()> {
    let toolchain = output(&mut Command::new(top.join("scripts/toolchain")))?;
    let llvm = toolchain
        .lines()
        .find_map(|line| line.strip_prefix("LLVM="))
        .context("scripts/toolchain says nothing of LLVM")?;
    // As the kernel's make takes it: a suffix, a directory, or 1 for neither.
    let tool = |name: &str| {
        Command::new(match llvm {
            _ if llvm.starts_with('-') => format!("{name}{llvm}"),
            _ if llvm.ends_with('/') => format!("{llvm}{name}"),
            _ => name.to_owned(),
        })
    };
    let (pure, object) = (out.join("pure.bc"), out.join("pure.o"));

    output(
        tool("opt")
            .arg("--passes=internalize,globaldce")
            .arg(format!("--internalize-public-api-list={}", names.join(",")))
            .arg(bitcode)
            .arg("-o")
            .arg(&pure),
    )?;
    output(
        tool("llc")
            .args(["-O2", "--relocation-model=pic", "--code-model=small"])
            .arg("--filetype=obj")
            .arg(&pure)
            .arg("-o")
            .arg(&object),
    )?;
    println!("cargo::rustc-link-arg={}", object.display());
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let done = command
        .output()
        .with_context(|| format!("{command:?} does not start"))?;

    if !done.status.success() {
        bail!(
            "{command:?}: {}: {}",
            done.status,
            String::from_utf8_lossy(&done.stderr)
        );
    }
    Ok(String::from_utf8(done.stdout)?)
}
