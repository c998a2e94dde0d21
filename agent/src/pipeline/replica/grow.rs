//! A replica whose source's volumes have grown.

use std::sync::{Arc, PoisonError};

use vgship_base::layout::Layout;

use super::{Engined, ReplicaGroup, Trouble};
use crate::capture::io::report;
use crate::group::drift::follow;
use crate::group::grow_replica;
use crate::pipeline::volumes::store_layout;
use crate::wire::frame::Frame;
use crate::wire::io::FrameReceiver;

impl ReplicaGroup {
    /// The source showed another layout: what it tells of it, and nothing else.
    pub(super) async fn hear_layout(&self, mut receiver: FrameReceiver) -> Trouble {
        match receiver.next().await {
            Ok(Some(Frame::Layout(layout))) => Trouble::Layout(layout),
            Ok(Some(Frame::Bye { text, .. })) => Trouble::Lost(text),
            Ok(_) => Trouble::Lost("the source's volumes differ, and it does not tell how".into()),
            Err(error) => Trouble::Lost(report(&error)),
        }
    }

    /// Makes the volumes as large as the source's. Nothing else is followed.
    ///
    /// Order: first the volumes grow, then the layout is stored: a replica whose volumes are larger
    /// than its layout can be opened, the other way round it cannot. The engine works until then,
    /// and a failure leaves it at work.
    pub(super) fn grow(&self, theirs: &Layout) -> Result<(), String> {
        let mine = self.layout();
        follow(&mine, theirs).map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            format!(
                "the source's volumes are no longer those of this replica: {}; when they shall stay \
                 so, take this replica anew: vgship group remove {}, and pair again",
                problems.join("; "),
                self.config.name
            )
        })?;
        if self.look_at().is_ok_and(|view| view.rolled.is_some()) {
            let name = &self.config.name;
            return Err(format!(
                "the source's volumes have grown, and those here are rolled back: they follow after \
                 vgship rollback {name} --undo"
            ));
        }
        let spec = self.config.volumes.parse().map_err(|it| report(&it))?;
        grow_replica(&spec, theirs).map_err(|it| format!("cannot grow: {}", report(&it)))?;
        store_layout(&self.group_home, theirs).map_err(|it| it.to_string())?;
        let mut opening = self.opening();
        *self.layout.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(theirs.clone());
        let engine = std::mem::replace(&mut *self.engine(), Self::being_opened());
        // Stopped for good meanwhile: then it stays so.
        let next = match engine {
            Engined::Stopped => Engined::Stopped,
            Engined::Working(working) => {
                working.stop();
                self.try_open(&mut opening)
            }
            Engined::Failed { .. } => self.try_open(&mut opening),
        };
        *self.engine() = next;
        tracing::info!(group = %self.config.name, "the volumes have grown as those of the source");
        Ok(())
    }
}
