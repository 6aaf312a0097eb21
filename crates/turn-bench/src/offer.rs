//! A load of so many packets per second, and how many of them arrive.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use aya::programs::XdpMode;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use crate::interface::{attach, index_of};
use crate::object::{Bare, Frames, Object};
use crate::processor;

/// Packets are sent in bursts this far apart, since each burst is a system call of some cost.
const PERIOD: Duration = Duration::from_micros(500);
/// How long packets may be under way when the last one has been sent.
const GRACE: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Network namespace where packets are counted.
    #[arg(long)]
    to: String,
    /// Its interface. An XDP program counts them there and drops them.
    #[arg(long)]
    at: String,
    /// The first of the 16 UDP ports at which they are counted; to others they are let pass.
    #[arg(long)]
    port: u16,
}

/// A line of standard input.
#[derive(Debug, Deserialize)]
struct Order {
    /// Network namespace that the packets come from.
    from: String,
    /// Its interface.
    by: String,
    /// The first packet's frame, in hexadecimal.
    frame: String,
    /// From how many sources they come, whose ports follow each other.
    sources: u32,
    /// Packets per second.
    rate: u32,
    /// For how long.
    seconds: f64,
}

/// What came of it: a line of standard output.
#[derive(Debug, Serialize)]
struct Outcome {
    sent: u64,
    arrived: u64,
    seconds: f64,
}

/// Counts from the first line of standard output on, and carries out one order after the other.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut object = Object::load()?;
    object.count_only(arguments.port)?;
    enter(&arguments.to)?;
    attach(object.bare(Bare::Count)?, &arguments.at, XdpMode::Driver)?;
    processor::stay()?;
    println!("ready");
    for line in io::stdin().lines() {
        let outcome = carry_out(&mut object, &serde_json::from_str(&line?)?)?;
        println!("{}", serde_json::to_string(&outcome)?);
    }
    Ok(())
}

fn carry_out(object: &mut Object, order: &Order) -> Result<Outcome> {
    let frames = Frames { frame: bytes(&order.frame)?, sources: order.sources };
    enter(&order.from)?;
    let ifindex = index_of(&order.by)?;
    object.send_to(ifindex)?;
    let arrived_before = object.arrived()?;
    let start = Instant::now();
    let mut sent = 0;
    loop {
        let elapsed = start.elapsed();
        if elapsed.as_secs_f64() >= order.seconds {
            break;
        }
        let due = ((elapsed + PERIOD).as_secs_f64() * f64::from(order.rate)) as u64 - sent;
        if due > 0 {
            object.generate(&frames, ifindex, due.try_into()?)?;
            sent += due;
        }
        thread::sleep((elapsed + PERIOD).saturating_sub(start.elapsed()));
    }
    let seconds = start.elapsed().as_secs_f64();
    thread::sleep(GRACE);
    Ok(Outcome { sent, arrived: object.arrived()? - arrived_before, seconds })
}

/// Moves the calling thread into a named network namespace.
fn enter(namespace: &str) -> Result<()> {
    let file = File::open(format!("/run/netns/{namespace}")).with_context(|| namespace.to_owned())?;
    Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn bytes(text: &str) -> Result<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        bail!("not hexadecimal: {text}");
    }
    let byte = |pair: &[u8]| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
    text.as_bytes().chunks(2).map(byte).collect()
}
