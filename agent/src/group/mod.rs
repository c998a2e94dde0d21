//! What is replicated: volume groups of any origin as a layout and a disk per LV.

pub mod aix;
