// SPDX-License-Identifier: GPL-2.0

//! An ELF core file of memory, for debuggers: what has no threads, and so no registers.

use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use object::elf;
use object::endian::{Endianness, LittleEndian, U32};
use object::pod::bytes_of;
use object::write::elf::{FileHeader, ProgramHeader, Writer};
use procfs::process::MMPermissions;

use crate::new_file::NewFile;
use crate::snapshot_mappings::Mapping;

/// Alignment of notes.
const NOTE_ALIGN: u64 = 4;

/// What comes before the contents, and where these go.
struct Layout {
    head: Vec<u8>,
    /// Offset of the contents of each mapping.
    contents: Vec<u64>,
    size: u64,
}

impl Layout {
    fn new(mappings: &[Mapping], page_size: u64) -> Result<Self> {
        let note = files_note(mappings, page_size)?;
        let headers = u32::try_from(mappings.len() + 1)?;
        let mut head = Vec::new();
        let mut writer = Writer::new(Endianness::Little, true, &mut head);
        writer.reserve_file_header();
        if headers >= elf::PN_XNUM.into() {
            // Their number has a place in the first section alone.
            writer.reserve_null_section_index();
        }
        writer.reserve_program_headers(headers);
        let note_offset = writer.reserve(note.len() as u64, NOTE_ALIGN);
        writer.reserve_section_headers();
        let (contents, size) = places(mappings, writer.reserved_len(), page_size)?;
        writer.write_file_header(&file_header())?;
        writer.write_align_program_headers();
        writer.write_program_header(&ProgramHeader {
            p_type: elf::PT_NOTE,
            p_flags: elf::ProgramFlags(0),
            p_offset: note_offset,
            p_vaddr: 0,
            p_paddr: 0,
            p_filesz: note.len() as u64,
            p_memsz: 0,
            p_align: NOTE_ALIGN,
        });
        for (mapping, offset) in mappings.iter().zip(&contents) {
            writer.write_program_header(&segment(mapping, *offset, page_size));
        }
        writer.pad_until(note_offset);
        writer.write(&note);
        writer.write_null_section_header();
        Ok(Self {
            head,
            contents,
            size,
        })
    }
}

/// Where the contents of each mapping go, behind `head` bytes, and the end of all.
fn places(mappings: &[Mapping], head: u64, page_size: u64) -> Result<(Vec<u64>, u64)> {
    let mut places = Vec::with_capacity(mappings.len());
    let mut end = head.next_multiple_of(page_size);
    for mapping in mappings {
        places.push(end);
        let next = end.checked_add(mapping.size());
        end = next.context("the mappings are too large for one file")?;
    }
    Ok((places, end))
}

fn file_header() -> FileHeader {
    FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_type: elf::ET_CORE,
        e_machine: elf::EM_X86_64,
        e_entry: 0,
        e_flags: elf::FileFlags(0),
    }
}

fn segment(mapping: &Mapping, offset: u64, page_size: u64) -> ProgramHeader {
    let mut flags = elf::ProgramFlags(0);
    for (permission, flag) in [
        (MMPermissions::READ, elf::PF_R),
        (MMPermissions::WRITE, elf::PF_W),
        (MMPermissions::EXECUTE, elf::PF_X),
    ] {
        if mapping.permissions.contains(permission) {
            flags |= flag;
        }
    }
    ProgramHeader {
        p_type: elf::PT_LOAD,
        p_flags: flags,
        p_offset: offset,
        p_vaddr: mapping.range.start,
        p_paddr: 0,
        p_filesz: mapping.size(),
        p_memsz: mapping.size(),
        p_align: page_size,
    }
}

/// The note that says which files are mapped, and where (NT_FILE).
fn files_note(mappings: &[Mapping], page_size: u64) -> Result<Vec<u8>> {
    let files = mappings.iter().filter(|mapping| is_of_file(&mapping.path));
    let mut numbers = vec![files.clone().count() as u64, page_size];
    let mut names = Vec::new();
    for mapping in files {
        let range = &mapping.range;
        numbers.extend([range.start, range.end, mapping.offset / page_size]);
        names.extend_from_slice(mapping.path.as_bytes());
        names.push(0);
    }
    let mut contents: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
    contents.append(&mut names);
    note(elf::NT_FILE, contents)
}

/// Whether this is the name of something that is mapped, and not of memory that is anonymous.
fn is_of_file(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('[')
}

fn note(kind: elf::NoteType, mut contents: Vec<u8>) -> Result<Vec<u8>> {
    let mut name = [elf::ELF_NOTE_CORE, b"\0"].concat();
    let size = u32::try_from(contents.len()).context("the names of the files are too long")?;
    let mut note = bytes_of(&elf::NoteHeader64 {
        n_namesz: U32::new(LittleEndian, name.len() as u32),
        n_descsz: U32::new(LittleEndian, size),
        n_type: U32::new(LittleEndian, kind),
    })
    .to_vec();
    for part in [&mut name, &mut contents] {
        part.resize(part.len().next_multiple_of(NOTE_ALIGN as usize), 0);
        note.append(part);
    }
    Ok(note)
}

/// A core file that is being written.
#[derive(Debug)]
pub struct CoreFile {
    file: NewFile,
    contents: Vec<u64>,
}

impl CoreFile {
    /// One of `mappings`, that becomes `path`; of zeros as yet, none of which takes space.
    pub fn create(path: &Path, mappings: &[Mapping], page_size: u64) -> Result<Self> {
        let layout = Layout::new(mappings, page_size)?;
        let file = NewFile::create(path)?;
        file.file
            .set_len(layout.size)
            .and_then(|()| file.file.write_all_at(&layout.head, 0))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            file,
            contents: layout.contents,
        })
    }

    /// Writes to the contents of the mapping with this number.
    pub fn write(&self, mapping: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file
            .file
            .write_all_at(bytes, self.contents[mapping] + offset)
            .with_context(|| format!("cannot write {}", self.file.path().display()))
    }

    /// All is written.
    pub fn finish(self) -> Result<()> {
        self.file.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use object::read::elf::{FileHeader as _, ProgramHeader as _};

    use super::*;

    const PAGE: u64 = 4096;

    fn mapping(range: Range<u64>) -> Mapping {
        Mapping {
            range,
            permissions: MMPermissions::READ | MMPermissions::PRIVATE,
            offset: 0,
            path: String::new(),
            unreadable: Vec::new(),
            digest: blake3::hash(&[]),
        }
    }

    #[test]
    fn any_number_of_mappings() {
        // One segment is that of the notes. With PN_XNUM of them, the number has another place.
        for count in [0, 1, 0xfffd, 0xfffe, 0xffff, 70_000] {
            let starts = (1..).map(|number| number * 2 * PAGE).take(count);
            let mappings: Vec<_> = starts.map(|start| mapping(start..start + PAGE)).collect();
            let Layout {
                head,
                contents,
                size,
            } = Layout::new(&mappings, PAGE).unwrap();
            let header = elf::FileHeader64::<Endianness>::parse(&*head).unwrap();
            let endian = header.endian().unwrap();
            let segments = header.program_headers(endian, &*head).unwrap();
            assert_eq!(segments.len(), count + 1);
            let first = contents.first().copied().unwrap_or(size);
            assert!(first % PAGE == 0 && first >= head.len() as u64);
            assert_eq!(size, first + count as u64 * PAGE);
            for ((segment, offset), mapping) in segments[1..].iter().zip(&contents).zip(&mappings) {
                assert_eq!(segment.p_offset(endian), *offset);
                assert_eq!(segment.p_vaddr(endian), mapping.range.start);
            }
        }
    }

    #[test]
    fn too_large_for_a_file() {
        let half = 1 << 63;
        let mappings = [
            mapping(0..half),
            mapping(half..half + half / 2),
            mapping(half..u64::MAX),
        ];
        let error = Layout::new(&mappings, PAGE).err().unwrap();
        assert!(error.to_string().contains("too large"), "{error}");
    }
}
