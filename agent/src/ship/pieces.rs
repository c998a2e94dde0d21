//! What of an extent goes to a replica that needs it: only the parts that differ, zeroes as zero.

use bytes::Bytes;
use vgship_base::bytes::is_zero;
use vgship_base::extent::Extent;
use vgship_base::limits::PART_BYTES;
use vgship_base::record::Body;
use vgship_base::units::Span;

use crate::apply::compare::part_hashes;

/// The bodies that make a replica's extent equal to `bytes`, which lie at `span`. `parts` are the
/// hashes of what the replica holds; empty when nothing of it can be used.
pub fn pieces(extent: Extent, span: Span, bytes: &Bytes, parts: &[u64]) -> Vec<Body> {
    let mut out = Vec::new();
    let mut run = 0..0;
    let ours = if parts.is_empty() { Vec::new() } else { part_hashes(bytes) };
    let differs = |part: usize| ours.is_empty() || parts.get(part) != ours.get(part);
    let step = PART_BYTES as usize;
    for part in 0..bytes.len().div_ceil(step) {
        let end = bytes.len().min((part + 1) * step);
        if differs(part) {
            run.end = end;
        } else {
            flush(extent, span, bytes, run.clone(), &mut out);
            run = end..end;
        }
    }
    flush(extent, span, bytes, run, &mut out);
    out
}

fn flush(
    extent: Extent,
    span: Span,
    bytes: &Bytes,
    run: std::ops::Range<usize>,
    out: &mut Vec<Body>,
) {
    if run.is_empty() {
        return;
    }
    let (volume, offset) = (extent.volume, span.offset + run.start as u64);
    let data = bytes.slice(run);
    out.push(match is_zero(&data) {
        true => Body::Zero { volume, span: Span::new(offset, data.len() as u64) },
        false => Body::Write { volume, offset, data },
    });
}

#[cfg(test)]
mod tests {
    use vgship_base::ids::VolumeId;

    use super::*;

    const EXTENT: Extent = Extent { volume: VolumeId(2), index: 1 };
    const SPAN: Span = Span::new(65_536, 20_000);

    fn shipped(source: &[u8], replica: &[u8], whole: bool) -> (Vec<u8>, u64) {
        let parts = if whole { vec![] } else { part_hashes(replica) };
        let (mut result, mut bytes) = (replica.to_vec(), 0);
        for body in pieces(EXTENT, SPAN, &Bytes::copy_from_slice(source), &parts) {
            let (at, data) = match body {
                Body::Write { volume, offset, data } => {
                    assert_eq!(volume, EXTENT.volume);
                    bytes += data.len() as u64;
                    (offset - SPAN.offset, data.to_vec())
                }
                Body::Zero { span, .. } => {
                    (span.offset - SPAN.offset, vec![0; usize::try_from(span.len).unwrap()])
                }
                other => panic!("{other:?}"),
            };
            let at = usize::try_from(at).unwrap();
            result[at..at + data.len()].copy_from_slice(&data);
        }
        (result, bytes)
    }

    #[test]
    fn only_the_parts_that_differ_are_shipped() {
        let replica = vec![7; 20_000];
        let mut source = replica.clone();
        source[5000] = 8;
        source[19_999] = 9;
        let expected = (source.clone(), 4096 + 20_000 % 4096);
        assert_eq!(shipped(&source, &replica, false), expected);
        assert_eq!(shipped(&source, &replica, true), (source, 20_000));
    }

    #[test]
    fn neighbouring_parts_go_as_one_and_zeroes_as_zero() {
        let (replica, mut source) = (vec![7; 20_000], vec![0; 20_000]);
        assert_eq!(shipped(&source, &replica, false), (source.clone(), 0));
        source[4096..16_384].fill(1);
        assert_eq!(shipped(&source, &vec![0; 20_000], false), (source, 12_288));
    }
}
