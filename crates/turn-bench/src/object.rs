//! The benchmark's own BPF object.
#![expect(unsafe_code, reason = "the template is declared plain data to aya here, in this file alone")]

use anyhow::{Context as _, Result, bail};
use aya::maps::xdp::DevMap;
use aya::maps::{Array, HashMap, MapData, PerCpuArray, ProgramArray};
use aya::programs::{Program, ProgramFd, SchedClassifier, TestRun as _, Xdp};
use aya::{Ebpf, Pod, TestRunAttrs, TestRunOptions};
use turn_bench_ebpf::{HEAD_WORDS, Template};
use turn_bpf::object::Plain;
use turn_datapath::{Flow, FlowKey};

use crate::processor::running_time;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("TURN_BENCH_OBJECT"));

/// Programs that do as good as nothing, to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bare {
    /// Lets the packet pass.
    Empty,
    /// Redirects it by a map of devices.
    Redirect,
    /// Sends it back.
    Transmit,
    /// Looks its key up.
    LookUp,
    /// Counts it and drops it.
    Count,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PlainTemplate(Template);

// SAFETY: zerocopy's derives proved that `Template` is without padding and that every bit pattern is valid.
unsafe impl Pod for PlainTemplate {}

/// The loaded object.
pub struct Object {
    ebpf: Ebpf,
    template: Array<MapData, PlainTemplate>,
    measured: ProgramArray<MapData>,
    wire: DevMap<MapData>,
    bare: DevMap<MapData>,
    bare_tc: Array<MapData, u32>,
    arrived: PerCpuArray<MapData, u64>,
    counted_port: Array<MapData, u32>,
    table: HashMap<MapData, Plain<FlowKey>, Plain<Flow>>,
}

/// Frames that are alike but for their source.
#[derive(Clone, Debug)]
pub struct Frames {
    /// The frame of the first source, a UDP datagram over IP without VLAN tags if there are more.
    pub frame: Vec<u8>,
    /// How many sources there are.
    pub sources: u32,
}

impl Frames {
    fn template(&self) -> Result<Template> {
        const HEAD: usize = HEAD_WORDS * 4;
        let Some((head, _)) = self.frame.split_at_checked(HEAD) else {
            bail!("a frame of less than {HEAD} bytes");
        };
        let mut words = [0; HEAD_WORDS];
        for (word, bytes) in words.iter_mut().zip(head.as_chunks::<4>().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        let version = match self.frame.get(12..14) {
            Some([0x08, 0x00]) => 4,
            Some([0x86, 0xdd]) => 6,
            _ => 0,
        };
        Ok(Template { head: words, length: self.frame.len() as u32, sources: self.sources, version })
    }
}

impl Object {
    /// Loads it.
    pub fn load() -> Result<Self> {
        let mut ebpf = Ebpf::load(OBJECT)?;
        for (name, program) in ebpf.programs_mut() {
            match program {
                Program::Xdp(xdp) => xdp.load(),
                Program::SchedClassifier(classifier) => classifier.load(),
                _ => bail!("what is {name}?"),
            }
            .with_context(|| format!("loading {name}"))?;
        }
        let mut map = |name| ebpf.take_map(name).with_context(|| format!("no map {name}"));
        Ok(Self {
            template: map("TEMPLATE")?.try_into()?,
            measured: map("MEASURED")?.try_into()?,
            wire: map("WIRE")?.try_into()?,
            bare: map("BARE")?.try_into()?,
            bare_tc: map("BARE_TC")?.try_into()?,
            arrived: map("ARRIVED")?.try_into()?,
            counted_port: map("COUNTED_PORT")?.try_into()?,
            table: map("TABLE")?.try_into()?,
            ebpf,
        })
    }

    /// Where the frames that are made go: an ifindex in the calling thread's namespace.
    pub fn send_to(&mut self, ifindex: u32) -> Result<()> {
        Ok(self.wire.set(0, ifindex, None, 0)?)
    }

    /// Where the bare redirect goes: an ifindex in the calling thread's namespace.
    pub fn redirect_to(&mut self, ifindex: u32) -> Result<()> {
        Ok(self.bare.set(0, ifindex, None, 0)?)
    }

    /// Where the bare redirect at TC goes: an ifindex in the namespace where it is attached.
    pub fn redirect_at_tc_to(&mut self, ifindex: u32) -> Result<()> {
        Ok(self.bare_tc.set(0, ifindex, 0)?)
    }

    /// How many frames have arrived at [`Bare::Count`].
    pub fn arrived(&self) -> Result<u64> {
        Ok(self.arrived.get(&0, 0)?.iter().sum())
    }

    /// Lets everything pass [`Bare::Count`] but IPv4 datagrams to this UDP port and the
    /// [`turn_bench_ebpf::COUNTED_PORTS`] from there.
    pub fn count_only(&mut self, port: u16) -> Result<()> {
        Ok(self.counted_port.set(0, u32::from(port), 0)?)
    }

    /// What [`Bare::LookUp`] finds.
    pub fn insert(&mut self, key: FlowKey, flow: Flow) -> Result<()> {
        Ok(self.table.insert(Plain(key), Plain(flow), 0)?)
    }

    /// What [`Bare::LookUp`] is to find no more.
    pub fn remove(&mut self, key: FlowKey) -> Result<()> {
        Ok(self.table.remove(&Plain(key))?)
    }

    /// A bare program.
    pub fn bare(&mut self, bare: Bare) -> Result<&mut Xdp> {
        self.xdp(match bare {
            Bare::Empty => "bench_empty",
            Bare::Redirect => "bench_redirect",
            Bare::Transmit => "bench_transmit",
            Bare::LookUp => "bench_lookup",
            Bare::Count => "bench_count",
        })
    }

    /// The program at TC that does nothing.
    pub fn next(&mut self) -> Result<&mut SchedClassifier> {
        self.classifier("bench_next")
    }

    /// The program at TC that redirects, by [`Object::redirect_at_tc_to`].
    pub fn tc_redirect(&mut self) -> Result<&mut SchedClassifier> {
        self.classifier("bench_tc_redirect")
    }

    fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        Ok(self.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
    }

    /// The file descriptor of a bare program.
    pub fn fd(&mut self, bare: Bare) -> Result<ProgramFd> {
        Ok(self.bare(bare)?.fd()?.try_clone()?)
    }

    /// Runs a program on the frames, each written anew before, and returns what it answered and how many nanoseconds one run took
    /// on average, including the writing.
    pub fn time(&mut self, program: &ProgramFd, frames: &Frames, runs: u32) -> Result<(u32, f64)> {
        self.template.set(0, PlainTemplate(frames.template()?), 0)?;
        self.measured.set(0, program, 0)?;
        let context = context(frames.frame.len(), LOOPBACK);
        let start = running_time();
        let result = self.xdp("bench_restore")?.test_run(TestRunOptions {
            data_in: Some(&frames.frame),
            ctx_in: Some(&context),
            repeat: runs,
            ..TestRunOptions::default()
        })?;
        Ok((result.return_value, (running_time() - start).as_secs_f64() * 1e9 / f64::from(runs)))
    }

    /// Makes so many frames and sends them, by [`Object::send_to`].
    pub fn generate(&mut self, frames: &Frames, ifindex: u32, count: u32) -> Result<()> {
        const BATCH: u32 = 64;
        self.template.set(0, PlainTemplate(frames.template()?), 0)?;
        let context = context(frames.frame.len(), ifindex);
        self.xdp("bench_generate")?.test_run(TestRunOptions {
            data_in: Some(&frames.frame),
            ctx_in: Some(&context),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        })?;
        Ok(())
    }

    fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        Ok(self.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
    }
}

/// What a test run takes for the interface by which packets come in.
pub const LOOPBACK: u32 = 1;

/// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn context(length: usize, ifindex: u32) -> Vec<u8> {
    [0, length as u32, 0, ifindex, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect()
}
