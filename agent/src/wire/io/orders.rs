//! Streams of orders of a set.

use std::sync::Arc;

use quinn::{ReadExactError, RecvStream, SendStream, WriteError};
use thiserror::Error;
use vgship_base::bytes::FormatError;
use vgship_base::ids::GroupId;

use super::link::Watch;
use crate::wire::orders::{HEADER_LEN, ORDERS_MAX, Order, Said, read_header};

/// Why a stream of orders is of no use any more.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OrderError {
    /// The stream could not be written.
    #[error("the peer does not take orders")]
    Send(#[from] WriteError),
    /// The stream ended or broke.
    #[error("the peer's stream of orders has ended")]
    Receive(#[from] ReadExactError),
    /// The peer sent what is no message.
    #[error("the peer does not keep to the protocol of orders")]
    Format(#[from] FormatError),
    /// The peer said more than belongs to one stream.
    #[error("the peer said more than {ORDERS_MAX} messages on a stream of orders")]
    TooMany,
    /// The link ended, or a stream was refused.
    #[error("the link ended before the stream of orders stood")]
    Link(#[from] super::link::LinkError),
}

/// A stream of orders for one group. Dropping a half ends it, which the other side takes for a
/// coordinator, or a member, that is lost.
#[derive(Debug)]
pub struct Orders {
    /// To the other side.
    pub sender: OrderSender,
    /// From the other side.
    pub receiver: OrderReceiver,
}

/// The sending half.
#[derive(Debug)]
pub struct OrderSender {
    stream: SendStream,
    _watch: Arc<Watch>,
}

/// The receiving half.
#[derive(Debug)]
pub struct OrderReceiver {
    stream: RecvStream,
    /// How many messages may still come. Whoever reads ahead of what is done keeps no more.
    left: u32,
    _watch: Arc<Watch>,
}

/// A stream that a peer opened, and for which group: the pairing allows it.
#[derive(Debug)]
pub struct Ordered {
    /// The group.
    pub group: GroupId,
    /// The stream.
    pub orders: Orders,
}

impl Orders {
    pub(super) fn new(send: SendStream, receive: RecvStream, watch: &Arc<Watch>) -> Orders {
        // Before all that is shipped: somebody may be frozen. One that has ended says so when used.
        let _ = send.set_priority(1);
        let sender = OrderSender { stream: send, _watch: Arc::clone(watch) };
        let watch = Arc::clone(watch);
        let receiver = OrderReceiver { stream: receive, left: ORDERS_MAX, _watch: watch };
        Orders { sender, receiver }
    }
}

impl OrderSender {
    /// Gives an order.
    pub async fn order(&mut self, order: &Order) -> Result<(), OrderError> {
        Ok(self.stream.write_all(&order.encode()).await?)
    }

    /// Answers.
    pub async fn say(&mut self, said: &Said) -> Result<(), OrderError> {
        Ok(self.stream.write_all(&said.encode()).await?)
    }

    /// Ends the stream once the peer has read all of it, or does not want to.
    pub async fn finish(mut self) {
        // Both fail only where the peer is gone already.
        let _ = self.stream.finish();
        let _ = self.stream.stopped().await;
    }
}

impl OrderReceiver {
    /// The next order. Must not be dropped half way.
    pub async fn order(&mut self) -> Result<Order, OrderError> {
        let (kind, body) = self.message().await?;
        Ok(Order::decode(kind, &body)?)
    }

    /// The next answer. Must not be dropped half way.
    pub async fn said(&mut self) -> Result<Said, OrderError> {
        let (kind, body) = self.message().await?;
        Ok(Said::decode(kind, &body)?)
    }

    async fn message(&mut self) -> Result<(u8, Vec<u8>), OrderError> {
        let mut header = [0; HEADER_LEN];
        self.stream.read_exact(&mut header).await?;
        self.left = self.left.checked_sub(1).ok_or(OrderError::TooMany)?;
        let (kind, len) = read_header(header)?;
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body).await?;
        Ok((kind, body))
    }
}
