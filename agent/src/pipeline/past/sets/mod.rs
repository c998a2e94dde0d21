//! Sets at work. [`member`] does at a group's source what a coordinator asks, over a stream of
//! orders ([`serve`]) or in the same agent ([`seats`]). [`conduct`] carries out one try, [`settle`]
//! takes away what is left of those that were not made, and [`shelf`] keeps what must survive.
//! [`resolve`] leads from a snapshot to what it consists of, for [`templates`] and whoever else uses it.

mod conduct;

mod control;

mod member;

mod resolve;

mod seats;

pub(in crate::pipeline) mod serve;

pub(in crate::pipeline) mod settle;

pub(in crate::pipeline) mod shelf;

mod templates;
