//! Frames over one bidirectional stream.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use thiserror::Error;
use vgship_base::record::Record;

use super::link::Watch;
use crate::wire::batch::{BatchEncoder, Compression};
use crate::wire::frame::{Answer, Frame, FrameError, HEADER_LEN, Header, answer_runs};

/// The sending half of a group's stream.
///
/// Every call may be dropped half way, in `select!` too: what was handed in is queued at once and
/// goes out, whole and in order, with this or the next call that sends. To drop the sender itself
/// ends the stream as it is, which the peer sees as an end or as a cut frame: say
/// [`Frame::Bye`] and [`FrameSender::finish`] to leave in order.
#[derive(Debug)]
pub struct FrameSender {
    stream: SendStream,
    encoder: BatchEncoder,
    queue: VecDeque<Bytes>,
    queued: u64,
    _watch: Arc<Watch>,
}

impl FrameSender {
    pub(super) fn new(
        stream: SendStream,
        compression: Compression,
        watch: Arc<Watch>,
    ) -> FrameSender {
        let encoder = BatchEncoder::new(compression);
        FrameSender { stream, encoder, queue: VecDeque::new(), queued: 0, _watch: watch }
    }

    /// Sends records, in one frame or several, without copying large data. Returns when the link
    /// has taken them, which it does once less than its send window is unconfirmed.
    pub async fn send_batch(&mut self, records: &[Record]) -> Result<(), WriteError> {
        self.queue_batch(records);
        self.flush().await
    }

    /// Sends one frame.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), WriteError> {
        match frame {
            Frame::Batch(records) => self.queue_batch(records),
            Frame::Answers(answers) => self.queue_answers(answers.clone()),
            _ => self.push(frame.encode()),
        }
        self.flush().await
    }

    /// Queues records to go out with the next [`FrameSender::flush`].
    pub fn queue_batch(&mut self, records: &[Record]) {
        let chunks = self.encoder.encode(records);
        chunks.into_iter().for_each(|chunk| self.push(chunk));
    }

    /// Queues answers, in one frame or several; none when there are no answers.
    pub fn queue_answers(&mut self, answers: Vec<Answer>) {
        for run in answer_runs(answers) {
            self.push(Frame::Answers(run).encode());
        }
    }

    /// Hands everything queued to the link.
    pub async fn flush(&mut self) -> Result<(), WriteError> {
        while !self.queue.is_empty() {
            let chunks = self.queue.make_contiguous();
            let written = self.stream.write_chunks(chunks).await?;
            self.queued -= written.bytes as u64;
            self.queue.drain(..written.chunks);
        }
        Ok(())
    }

    /// What was handed in here and the link has not taken yet. Unit: bytes.
    pub const fn queued(&self) -> u64 {
        self.queued
    }

    /// Flushes and ends the stream; the peer reads all before it sees the end, if the link lives.
    pub async fn finish(mut self) -> Result<(), WriteError> {
        self.flush().await?;
        self.stream.finish().map_err(|_| WriteError::ClosedStream)?;
        let stopped = self.stream.stopped().await;
        stopped.map(|_| ()).map_err(|_| WriteError::ClosedStream)
    }

    /// The stream below, to send what no sender would.
    #[cfg(test)]
    pub(super) fn into_stream(self) -> SendStream {
        self.stream
    }

    fn push(&mut self, chunk: Bytes) {
        self.queued += chunk.len() as u64;
        self.queue.push_back(chunk);
    }
}

/// Why no further frame comes from a stream.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The link broke, or the peer reset the stream.
    #[error("the peer's stream broke off")]
    Lost(#[from] ReadError),
    /// The stream ended inside a frame.
    #[error("the peer's stream ended in the middle of a frame")]
    Cut,
    /// The peer sent what is no frame; the stream is of no use any more.
    #[error("the peer does not keep to the protocol")]
    Frame(#[from] FrameError),
}

/// The receiving half of a group's stream.
#[derive(Debug)]
pub struct FrameReceiver {
    stream: RecvStream,
    header: [u8; HEADER_LEN],
    filled: usize,
    body: Option<(Header, Vec<u8>)>,
    _watch: Arc<Watch>,
}

impl FrameReceiver {
    pub(super) const fn new(stream: RecvStream, watch: Arc<Watch>) -> FrameReceiver {
        FrameReceiver { stream, header: [0; HEADER_LEN], filled: 0, body: None, _watch: watch }
    }

    /// The next frame; `None` when the peer ended the stream between two frames.
    ///
    /// May be dropped at any point, in `select!` too: what has arrived of a frame is kept for the
    /// next call.
    pub async fn next(&mut self) -> Result<Option<Frame>, ReceiveError> {
        if self.body.is_none() {
            while self.filled < HEADER_LEN {
                let rest = &mut self.header[self.filled..];
                match self.stream.read(rest).await? {
                    Some(count) => self.filled += count,
                    None if self.filled == 0 => return Ok(None),
                    None => return Err(ReceiveError::Cut),
                }
            }
            let header = Header::decode(self.header)?;
            self.filled = 0;
            self.body = Some((header, vec![0; header.body_len()]));
        }
        if let Some((_, body)) = &mut self.body {
            while self.filled < body.len() {
                let count = self.stream.read(&mut body[self.filled..]).await?;
                self.filled += count.ok_or(ReceiveError::Cut)?;
            }
        }
        self.filled = 0;
        let (header, body) = self.body.take().expect("filled above");
        Ok(Some(Frame::decode(header, Bytes::from(body))?))
    }

    /// Tells the peer that nothing more is read here.
    pub fn stop(mut self) {
        // Already ended or broken: then the peer knows.
        let _ = self.stream.stop(quinn::VarInt::from_u32(0));
    }
}
