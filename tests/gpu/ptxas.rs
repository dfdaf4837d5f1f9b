//! Assembles kernels with ptxas, the assembler of CUDA. It needs no GPU. `scripts/fetch-ptxas.sh` downloads it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The chips for which every kernel is assembled: A100, H100 and B200.
const CHIPS: [&str; 3] = ["sm_80", "sm_90", "sm_100"];

/// The resources that a kernel uses on one chip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub chip: &'static str,
    pub registers: u32,
    pub shared_bytes: u32,
    pub spilled_bytes: u32,
}

/// Returns the number before the first occurrence of `words` in `text`.
fn number_before(text: &str, words: &str) -> Option<u32> {
    let (before, _) = text.split_once(words)?;
    before.trim_end().rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Assembles a file with one kernel for one chip. The error contains the output of ptxas.
fn assemble_for(file: &Path, chip: &'static str) -> Result<Used, String> {
    let ptxas = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/ptxas/ptxas");
    assert!(ptxas.exists(), "{} is missing: run `make ptxas`", ptxas.display());
    let arguments = ["--verbose", "--warn-on-spills", "--gpu-name", chip, "--output-file", "/dev/null"];
    let output = Command::new(ptxas).args(arguments).arg(file).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("{} for {chip}: {said}", file.display()));
    }
    let registers = number_before(&said.replace("Used ", ""), " registers");
    let stores = number_before(&said, " bytes spill stores");
    let loads = number_before(&said, " bytes spill loads");
    let (Some(registers), Some(stores), Some(loads)) = (registers, stores, loads) else {
        return Err(format!("{} for {chip}: ptxas reports no resources: {said}", file.display()));
    };
    let shared_bytes = number_before(&said, " bytes smem").unwrap_or(0);
    Ok(Used { chip, registers, shared_bytes, spilled_bytes: stores + loads })
}

/// Assembles kernels for every chip and prints their resources. Panics if ptxas rejects a kernel.
pub(crate) fn assemble(kernels: &[PathBuf]) -> Vec<Used> {
    let mut all = Vec::new();
    for file in kernels {
        for chip in CHIPS {
            let used = assemble_for(file, chip).unwrap_or_else(|said| panic!("{said}"));
            let name = file.file_stem().unwrap().to_string_lossy();
            println!(
                "{name} on {chip}: {} registers, {} bytes of shared memory, {} bytes spilled",
                used.registers, used.shared_bytes, used.spilled_bytes
            );
            all.push(used);
        }
    }
    all
}

/// The programs of the interpreter's own tests are valid PTX.
#[test]
fn hand_written_programs() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interpreter/ptx/programs");
    let mut programs: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    programs.sort();
    let used = assemble(&programs);
    assert_eq!(used.len(), 5 * CHIPS.len());
    assert!(used.iter().all(|used| used.spilled_bytes == 0 && used.registers > 4), "{used:#?}");
    // sum_tree.ptx has an array of 256 bytes in shared memory.
    assert!(used.iter().any(|used| used.shared_bytes == 256), "{used:#?}");
}

#[test]
fn malformed_text_is_rejected() {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("malformed.ptx");
    fs::write(&file, ".version 7.8\n.target sm_80\n.address_size 64\n.visible .entry k() { add.u32; }\n")
        .unwrap();
    let said = assemble_for(&file, "sm_80").unwrap_err();
    assert!(said.contains("line 4") && said.contains("error"), "{said}");
}

/// A kernel with more values than registers.
#[test]
fn spills_are_reported() {
    let mut text = String::from(
        ".version 7.8\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 x)\n.maxntid 1024, 1, 1\n{\n\
         .reg .b32 %r<201>; .reg .b64 %rd1; ld.param.u64 %rd1, [x]; mov.u32 %r200, 0;\n",
    );
    (0..200).for_each(|i| text += &format!("ld.volatile.global.u32 %r{i}, [%rd1+{}];\n", 4 * i));
    (0..200).rev().for_each(|i| text += &format!("mad.lo.u32 %r200, %r200, 33, %r{i};\n"));
    text += "st.global.u32 [%rd1], %r200; ret;\n}\n";
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("spills.ptx");
    fs::write(&file, text).unwrap();
    let used = assemble_for(&file, "sm_80").unwrap();
    assert!(used.registers == 64 && used.spilled_bytes > 400, "{used:?}");
}
