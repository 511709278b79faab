//! Whether what gives the numbers of a layer on ordinary inputs gives them on all others.

mod blank;
mod guards;
pub mod limits;
mod odd;
