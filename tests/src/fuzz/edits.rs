//! Scripts that change what a real writer made: so that a fuzzer gets behind seals and checksums,
//! and its bytes are spent on what was changed and not on what was written.

use vgship_base::bytes::{Writer, with_checksum};
use vgship_base::folder::Folder;
use vgship_base::sim::SimFolder;

use super::Input;

/// What disks write as one piece, and on which sealed frames begin. Unit: bytes.
const SECTOR: usize = 512;

/// The input as it is, or with the checksum that most formats end with, as its first byte says.
pub fn perhaps_summed(data: &[u8]) -> Vec<u8> {
    match data.split_first() {
        Some((first, rest)) if first & 1 == 1 => with_checksum(Writer::reusing(rest.to_vec())),
        Some((_, rest)) => rest.to_vec(),
        None => Vec::new(),
    }
}

/// An input for [`perhaps_summed`] that gives these bytes, which end with their checksum.
pub fn summed(bytes: &[u8]) -> Vec<u8> {
    [&[1], &bytes[..bytes.len().saturating_sub(4)]].concat()
}

/// Changes bytes once.
pub fn edit(input: &mut Input<'_>, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return bytes.extend_from_slice(input.take(16));
    }
    let at = |input: &mut Input<'_>, len: usize| match input.flag() {
        true => input.index(len.div_ceil(SECTOR)) * SECTOR,
        false => usize::try_from(input.u32()).expect("32 bits fit") % len,
    };
    match input.below(6) {
        0 => {
            let place = at(input, bytes.len());
            bytes[place] ^= 1 << input.below(8);
        }
        1 => {
            let place = at(input, bytes.len());
            let count = input.below(24);
            let new = input.take(count);
            let end = bytes.len().min(place + new.len());
            bytes[place..end].copy_from_slice(&new[..end - place]);
        }
        2 => bytes.truncate(at(input, bytes.len())),
        3 => {
            let (from, to) = (at(input, bytes.len()), at(input, bytes.len()));
            let most = bytes.len() - from.max(to);
            bytes.copy_within(from..from + most.min(SECTOR * input.below(16)), to);
        }
        4 => {
            let place = at(input, bytes.len());
            let end = bytes.len().min(place + SECTOR * input.below(16));
            bytes[place..end].fill(0);
        }
        _ => {
            let count = SECTOR * input.below(20);
            bytes.resize(bytes.len() + count, input.u8());
        }
    }
}

/// Changes a folder once: a file's bytes, or the files' names. Changes are durable.
pub fn edit_folder(input: &mut Input<'_>, folder: &SimFolder) {
    const POWER: &str = "a fuzzed folder has power";
    let names = folder.list().expect(POWER);
    if names.is_empty() {
        return;
    }
    let name = &names[input.below(names.len().min(256))];
    match input.below(10) {
        0 => folder.remove(name).expect(POWER),
        1 => folder.rename(name, &names[input.below(names.len().min(256))]).expect(POWER),
        2 => {
            let other = odd_name(input, name);
            folder.rename(name, &other).expect(POWER);
        }
        _ => {
            let mut bytes = folder.file(name).expect("it was listed").live();
            edit(input, &mut bytes);
            put(folder, name, &bytes);
        }
    }
    folder.sync().expect(POWER);
}

/// A name like this one: with one letter changed, or of the highest number.
fn odd_name(input: &mut Input<'_>, name: &str) -> String {
    if input.flag() {
        return name.replace(|letter: char| letter.is_ascii_digit(), "f");
    }
    let mut letters: Vec<char> = name.chars().collect();
    let place = input.index(letters.len());
    letters[place] = char::from(b"0123456789abcdefF+.-x"[input.below(21)]);
    letters.into_iter().collect()
}

/// Puts a file of this content in place of the one of this name.
pub fn put(folder: &SimFolder, name: &str, bytes: &[u8]) {
    const POWER: &str = "a fuzzed folder has power";
    let _ = folder.remove(name);
    let file = folder.create(name).expect(POWER);
    file.write_at(0, bytes).expect(POWER);
    file.flush().expect(POWER);
}
