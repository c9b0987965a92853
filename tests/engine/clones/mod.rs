//! Machines that are cloned, rolled back or duplicated in mid-life (docs/clones.md).

mod disruption;
mod fork;
mod resumption;
