//! The network below a link: each direction is a reliable stream of frames over datagrams, which
//! the network delivers in any order, twice, late, or not at all until they are sent again.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes, BytesMut};
use vgship::wire::frame::{Frame, HEADER_LEN, Header};
use vgship_base::sim::Rng;

/// What a run's network does to datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// They overtake one another.
    pub reorders: bool,
    /// They arrive again.
    pub duplicates: bool,
    /// They are lost, and sent again when nothing else is under way.
    pub drops: bool,
    /// What one of them carries at most. Unit: bytes.
    pub datagram: usize,
    /// What may be under way before the sender waits. Unit: bytes.
    pub window: usize,
}

/// What happened to datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It came before one that precedes it.
    Early,
    /// It came again.
    Again,
    /// It was lost.
    Lost,
}

/// A piece of the stream.
#[derive(Clone)]
struct Datagram {
    /// Where in the stream it begins. Unit: bytes.
    at: u64,
    bytes: Bytes,
}

/// One direction of a link.
#[derive(Default)]
pub struct Pipe {
    /// Bytes that the sender has put in.
    sent: u64,
    under_way: VecDeque<Datagram>,
    lost: Vec<Datagram>,
    /// Bytes that have arrived without a gap.
    arrived: u64,
    early: BTreeMap<u64, Bytes>,
    stream: BytesMut,
    frames: VecDeque<Frame>,
}

impl Pipe {
    /// Whether the sender may put in more.
    pub fn open(&self, weather: &Weather) -> bool {
        self.sent - self.arrived < weather.window as u64
    }

    /// Puts in the bytes of whole frames.
    pub fn put(&mut self, weather: &Weather, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(weather.datagram));
            let len = piece.len() as u64;
            self.under_way.push_back(Datagram { at: self.sent, bytes: piece });
            self.sent += len;
        }
    }

    /// The next frame that is whole and in order, after as many datagrams as it takes; `None` when
    /// nothing more is under way, or what was lost has only just been sent again.
    pub fn next(
        &mut self,
        weather: &Weather,
        rng: &mut Rng,
        mut met: impl FnMut(Event),
    ) -> Option<Frame> {
        while self.frames.is_empty() && !self.under_way.is_empty() {
            self.step(weather, rng, &mut met);
            self.assemble();
        }
        if self.under_way.is_empty() {
            self.send_again();
        }
        self.frames.pop_front()
    }

    /// One datagram arrives, or is lost.
    fn step(&mut self, weather: &Weather, rng: &mut Rng, met: &mut impl FnMut(Event)) {
        let place = if weather.reorders { rng.index(self.under_way.len().min(16)) } else { 0 };
        if weather.drops && rng.one_in(8) {
            met(Event::Lost);
            self.lost.extend(self.under_way.remove(place));
            return;
        }
        let stays = weather.duplicates && rng.one_in(8);
        let datagram = if stays {
            self.under_way[place].clone()
        } else {
            self.under_way.remove(place).expect("it was picked among them")
        };
        let end = datagram.at + datagram.bytes.len() as u64;
        if end <= self.arrived || self.early.contains_key(&datagram.at) {
            met(Event::Again);
        } else {
            if datagram.at > self.arrived {
                met(Event::Early);
            }
            self.early.insert(datagram.at, datagram.bytes);
        }
    }

    /// What was lost goes out again, cut anew.
    fn send_again(&mut self) {
        for Datagram { at, mut bytes } in self.lost.drain(..) {
            let half = bytes.split_to(bytes.len() / 2);
            let rest = at + half.len() as u64;
            if !half.is_empty() {
                self.under_way.push_back(Datagram { at, bytes: half });
            }
            self.under_way.push_back(Datagram { at: rest, bytes });
        }
    }

    /// Puts what came into order, and takes out whole frames.
    fn assemble(&mut self) {
        while let Some(first) = self.early.first_entry() {
            let known = self.arrived.saturating_sub(*first.key());
            if *first.key() > self.arrived {
                break;
            }
            let mut bytes = first.remove();
            bytes.advance(bytes.len().min(usize::try_from(known).expect("small")));
            self.arrived += bytes.len() as u64;
            self.stream.extend_from_slice(&bytes);
        }
        while let Some(head) = self.stream.first_chunk::<HEADER_LEN>() {
            let header = Header::decode(*head).expect("the sender's headers are sound");
            let len = HEADER_LEN + header.body_len();
            if self.stream.len() < len {
                break;
            }
            let mut whole = self.stream.split_to(len).freeze();
            whole.advance(HEADER_LEN);
            let frame = Frame::decode(header, whole).expect("the sender's frames are sound");
            self.frames.push_back(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of very different length come through in order, whatever the weather.
    #[test]
    fn frames_arrive_whole_and_in_order() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let weather = Weather {
                reorders: rng.one_in(2),
                duplicates: rng.one_in(2),
                drops: rng.one_in(2),
                datagram: 1 + rng.index(60),
                window: usize::MAX,
            };
            let mut pipe = Pipe::default();
            for number in 0..20 {
                pipe.put(&weather, Frame::Ping(number).encode());
            }
            let mut met = Vec::new();
            let (mut wanted, mut rounds) = (0, 0);
            while wanted < 20 {
                rounds += 1;
                assert!(rounds < 1000, "seed {seed}: frame {wanted} does not come");
                if let Some(frame) = pipe.next(&weather, &mut rng, |event| met.push(event)) {
                    assert_eq!(frame, Frame::Ping(wanted), "seed {seed}");
                    wanted += 1;
                }
            }
            for (event, cause) in [
                (Event::Early, weather.reorders || weather.drops),
                (Event::Again, weather.duplicates),
                (Event::Lost, weather.drops),
            ] {
                assert!(cause || !met.contains(&event), "seed {seed}: {event:?}");
            }
        }
    }
}
