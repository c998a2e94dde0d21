//! What one side makes of another's word while roles change: a hello to a source whose role is on
//! its way elsewhere, a source that shows itself to a source.

use vgship_base::ids::{Generation, ReplicaId, Seq};

use super::meeting::{Ancestry, Meeting};
use crate::capture::source::Handed;
use crate::ship::verdict::ReplicaPoint;

/// What a replica's hello says of the handover that its source has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is not the one that the role goes to, and says nothing of it.
    Nothing,
    /// It took the role, or is about to.
    Taken,
    /// It proves that it does not have the handover: this side stays the source.
    NotTaken,
}

/// What the hello of replica `id` says of a handover by the source of `ours`. `lineage` is what came
/// before the generation that it is of.
pub fn of_handover(
    handed: Handed,
    id: ReplicaId,
    ours: Generation,
    (point, lineage): (&ReplicaPoint, &[(Generation, Seq)]),
) -> Heard {
    let of_ours = lineage.iter().find(|(known, _)| *known == ours).map(|(_, kept)| *kept);
    let upto = if point.generation == ours { Some(point.durable) } else { of_ours };
    // One that holds nothing has nothing to take the role with; one that went on in a history of its
    // own from before the handover did not take it.
    let has = !point.fresh && upto.is_some_and(|upto| upto >= handed.seq);
    match () {
        () if handed.to != id => Heard::Nothing,
        () if has => Heard::Taken,
        () => Heard::NotTaken,
    }
}

/// Whether a source that meets ours shows by its history that it took the handover that was begun
/// to it.
pub fn took_handover(handed: Handed, meeting: Meeting) -> bool {
    matches!(meeting, Meeting::Deposed(fork) if fork >= handed.seq)
}

/// Whether a side that gives up a history of its own may follow ours.
pub fn may_follow(ours: &Ancestry, theirs: &Ancestry) -> bool {
    ours.common(theirs).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Generation = Generation([1; 16]);
    const NEW: Generation = Generation([2; 16]);
    const TO: ReplicaId = ReplicaId(1);
    const HANDED: Handed = Handed { to: TO, seq: Seq(50) };

    fn point(generation: Generation, durable: u64) -> ReplicaPoint {
        ReplicaPoint { fresh: false, generation, durable: Seq(durable), damaged: false }
    }

    #[test]
    fn only_the_one_that_was_handed_the_role_can_tell() {
        let fresh = ReplicaPoint { fresh: true, ..point(Generation::default(), 0) };
        let rows: [(_, _, &[_], _); 8] = [
            (ReplicaId(0), point(OURS, 49), &[], Heard::Nothing),
            (ReplicaId(0), point(NEW, 90), &[(OURS, Seq(50))], Heard::Nothing),
            (TO, point(OURS, 49), &[], Heard::NotTaken),
            (TO, point(OURS, 50), &[], Heard::Taken),
            (TO, point(NEW, 90), &[(OURS, Seq(50))], Heard::Taken),
            (TO, point(NEW, 90), &[(OURS, Seq(49))], Heard::NotTaken),
            (TO, point(NEW, 90), &[], Heard::NotTaken),
            (TO, fresh, &[], Heard::NotTaken),
        ];
        for (id, point, lineage, expected) in rows {
            let heard = of_handover(HANDED, id, OURS, (&point, lineage));
            assert_eq!(heard, expected, "{id:?} {point:?} {lineage:?}");
        }
    }

    #[test]
    fn a_source_that_began_behind_the_handover_took_it() {
        for (meeting, taken) in [
            (Meeting::Deposed(Seq(50)), true),
            (Meeting::Deposed(Seq(49)), false),
            (Meeting::Deposes(Seq(50)), false),
            (Meeting::Apart(OURS, Seq(50)), false),
            (Meeting::Unrelated, false),
        ] {
            assert_eq!(took_handover(HANDED, meeting), taken, "{meeting:?}");
        }
    }

    #[test]
    fn a_side_follows_only_where_it_has_history_in_common() {
        let ours = Ancestry { generation: NEW, lineage: vec![(OURS, Seq(50))] };
        let other = Ancestry { generation: Generation([9; 16]), lineage: Vec::new() };
        assert!(may_follow(&ours, &Ancestry { generation: OURS, lineage: Vec::new() }));
        assert!(!may_follow(&ours, &other));
    }
}
