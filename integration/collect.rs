//! What is kept no longer goes: beside builds, whatever fails meanwhile, and
//! whenever whoever does it is killed.

mod churn;
mod faults;
mod killed;
mod quota;
mod world;
