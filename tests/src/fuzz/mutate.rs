//! Changes inputs by dice: what fuzzes where there is no libFuzzer. It learns nothing, so it only
//! goes where a corpus has been.

use vgship_base::sim::Rng;

/// Numbers that formats often get wrong.
const ODD: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x10_0000,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 48,
    u64::MAX >> 1,
    u64::MAX,
];

/// An input made from those of a corpus, at most `longest` bytes.
pub fn mutated(rng: &mut Rng, corpus: &[Vec<u8>], longest: usize) -> Vec<u8> {
    let mut data = match corpus.is_empty() {
        true => Vec::new(),
        false => corpus[rng.index(corpus.len())].clone(),
    };
    for _ in 0..=rng.below(6) {
        mutate(rng, &mut data, corpus);
    }
    data.truncate(longest);
    data
}

fn mutate(rng: &mut Rng, data: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let byte = |rng: &mut Rng| rng.draw().to_be_bytes()[0];
    if data.is_empty() {
        return data.extend((0..=rng.below(16)).map(|_| rng.draw().to_be_bytes()[0]));
    }
    let at = rng.index(data.len());
    let end = data.len().min(at + 1 + rng.index(16));
    match rng.below(8) {
        0 => data[at] ^= 1 << rng.below(8),
        1 => data[at] = byte(rng),
        2 => {
            let number = ODD[rng.index(ODD.len())].to_be_bytes();
            let len = [1, 2, 4, 8][rng.index(4)].min(data.len() - at);
            data[at..at + len].copy_from_slice(&number[8 - len..]);
        }
        3 => drop(data.drain(at..end)),
        4 => {
            let new: Vec<u8> = (at..end).map(|_| byte(rng)).collect();
            data.splice(at..at, new);
        }
        5 => {
            let copy = data[at..end].to_vec();
            let to = rng.index(data.len());
            data.splice(to..to, copy);
        }
        6 => data.truncate(at),
        _ => {
            let other = &corpus[rng.index(corpus.len())];
            let from = rng.index(other.len() + 1);
            data.truncate(at);
            data.extend_from_slice(&other[from..]);
        }
    }
}
