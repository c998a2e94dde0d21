//! Whether what a replica holds is a prefix of what an application did in several streams.
//!
//! A stream does one operation after another; streams run side by side. What is known about
//! operations of different streams is this: one that was acknowledged before another was issued
//! comes before it, in every order that a source may have given them.

/// One operation. Unit of both: ticks of [`Order`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// When it was first asked for.
    pub issued: u64,
    /// When it was known to be done.
    pub acknowledged: Option<u64>,
}

/// What the streams of a load did. Operations of a stream are numbered from 1.
#[derive(Clone, Debug, Default)]
pub struct Order {
    streams: Vec<Vec<Operation>>,
    tick: u64,
}

impl Order {
    /// Of so many streams, which have done nothing yet.
    pub fn new(streams: usize) -> Order {
        Order { streams: vec![Vec::new(); streams], tick: 0 }
    }

    /// Notes that a stream asks for its next operation, and gives its number.
    pub fn issue(&mut self, stream: usize) -> u64 {
        self.tick += 1;
        self.streams[stream].push(Operation { issued: self.tick, acknowledged: None });
        self.streams[stream].len() as u64
    }

    /// Notes that the stream's last operation is done.
    pub fn acknowledge(&mut self, stream: usize) {
        self.tick += 1;
        let last = self.streams[stream].last_mut().expect("it was issued");
        last.acknowledged = Some(self.tick);
    }

    /// How many each stream has asked for.
    pub fn issued(&self) -> Vec<u64> {
        self.streams.iter().map(|stream| stream.len() as u64).collect()
    }

    /// How many of each stream are known to be done.
    pub fn acknowledged(&self) -> Vec<u64> {
        let done = |stream: &Vec<Operation>| {
            stream.iter().filter(|operation| operation.acknowledged.is_some()).count() as u64
        };
        self.streams.iter().map(done).collect()
    }

    /// Says what is wrong with a replica that holds the first `found` operations of each stream,
    /// when it has to hold the first `floor` of each.
    pub fn judge(&self, found: &[u64], floor: &[u64]) -> Result<(), String> {
        for (stream, operations) in self.streams.iter().enumerate() {
            let (holds, issued, least) = (found[stream], operations.len() as u64, floor[stream]);
            if holds > issued {
                return Err(format!("stream {stream}: holds {holds}, but {issued} were issued"));
            }
            if holds < least {
                return Err(format!("stream {stream}: holds {holds}, so {least} is LOST"));
            }
        }
        // The newest that it holds, and the oldest that it lacks though it was done.
        let held = |stream: usize, many: u64| Some(&self.streams[stream][index(many)?]);
        let lacks = |stream: usize, many: u64| self.streams[stream].get(index(many + 1)?);
        for (one, &many) in found.iter().enumerate() {
            let Some(newest) = held(one, many) else { continue };
            for (other, &few) in found.iter().enumerate() {
                let done = lacks(other, few).and_then(|operation| operation.acknowledged);
                if done.is_some_and(|done| done < newest.issued) {
                    return Err(format!(
                        "no prefix: holds {many} of stream {one}, which was issued after {} of \
                         stream {other} was done, and does not hold that",
                        few + 1
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Where the operation of a number stands.
fn index(number: u64) -> Option<usize> {
    usize::try_from(number.checked_sub(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Streams 0 and 1 take turns, twice; then each has one under way.
    fn turns() -> Order {
        let mut order = Order::new(2);
        for _ in 0..2 {
            for stream in [0, 1] {
                order.issue(stream);
                order.acknowledge(stream);
            }
        }
        order.issue(0);
        order.issue(1);
        order
    }

    #[test]
    fn prefixes_pass() {
        let order = turns();
        assert_eq!(order.acknowledged(), [2, 2]);
        assert_eq!(order.issued(), [3, 3]);
        for found in [[0, 0], [1, 0], [1, 1], [2, 1], [2, 2], [3, 2], [2, 3], [3, 3]] {
            assert_eq!(order.judge(&found, &[0, 0]), Ok(()), "{found:?}");
        }
    }

    #[test]
    fn what_is_no_prefix_is_said() {
        let order = turns();
        for found in [[0, 1], [2, 0], [1, 2], [3, 1], [0, 3]] {
            let said = order.judge(&found, &[0, 0]).unwrap_err();
            assert!(said.starts_with("no prefix"), "{found:?}: {said}");
        }
    }

    #[test]
    fn a_loss_and_an_invention_are_said() {
        let order = turns();
        assert_eq!(order.judge(&[2, 2], &[2, 2]), Ok(()));
        assert!(order.judge(&[2, 1], &[2, 2]).unwrap_err().contains("LOST"));
        assert!(order.judge(&[4, 3], &[0, 0]).unwrap_err().contains("issued"));
    }
}
