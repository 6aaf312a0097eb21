//! One call: two ends that send to each other at a fixed pace through the server, and count what comes.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use turn_testkit::coturn::PORT;
use turn_testkit::datagram;
use turn_testkit::lab::{Family, Lab, Namespace};
use turn_testkit::traffic::{Numbered, Tally};
use turn_testkit::turn_client::{Received, TurnClient};

use super::mix::Plan;

/// 50 packets a second.
const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
const AUDIO_SIZE: usize = 160;
/// 30 frames a second.
const FRAME_INTERVAL: Duration = Duration::from_micros(33_333);
const FRAME_PACKETS: u64 = 4;
/// Every so many frames there is a big one, as codecs make them to start anew.
const KEY_FRAME_EVERY: u64 = 90;
const KEY_FRAME_PACKETS: u64 = 40;
const VIDEO_SIZE: usize = 1100;
/// As browsers do it: before the five minutes of a permission are over.
const RENEWAL: Duration = Duration::from_secs(240);
/// How often an end looks whether its call is over.
const TICK: Duration = Duration::from_millis(200);
/// How long after the last packet others may still come.
const GRACE: Duration = Duration::from_secs(2);

/// A call that has been set up.
pub struct Call {
    plan: Plan,
    ends: [End; 2],
    renewals: u64,
}

/// What became of a call.
#[derive(Debug)]
pub struct Outcome {
    pub plan: Plan,
    /// In each direction.
    pub sent: [u64; 2],
    pub tallies: [Tally; 2],
    /// Requests that renewed something.
    pub renewals: u64,
    /// Why it could not be set up, or could not go on.
    pub failure: Option<String>,
}

impl Outcome {
    /// A call that did not come about.
    pub fn failed(plan: Plan, failure: String) -> Self {
        Self { plan, sent: [0; 2], tallies: Default::default(), renewals: 0, failure: Some(failure) }
    }
}

/// Who speaks.
enum Speaker {
    Client { client: TurnClient, peer: SocketAddr, channel: u16 },
    Peer { socket: UdpSocket, relayed: SocketAddr },
}

/// One end with its pace.
struct End {
    speaker: Speaker,
    next_audio: Instant,
    next_frame: Option<Instant>,
    frames: u64,
    sent: u64,
    tally: Tally,
}

impl Call {
    /// Allocates and binds.
    pub fn join(lab: &Lab, plan: Plan) -> Result<Self> {
        let (client_family, relay_family) = plan.families;
        let near = (lab.addresses(client_family).client, 0).into();
        let (mut client, relayed) = allocate(lab, &lab.client, near, client_family, relay_family)?;
        let speakers = if plan.kind.is_pair() {
            let far = (lab.addresses(client_family).peer, 0).into();
            let (mut other, other_relayed) = allocate(lab, &lab.peer, far, client_family, relay_family)?;
            let other_channel = plan.channel ^ 1;
            client.channel_bind(plan.channel, other_relayed).context("ChannelBind")?;
            other.channel_bind(other_channel, relayed).context("ChannelBind")?;
            [
                Speaker::Client { client, peer: other_relayed, channel: plan.channel },
                Speaker::Client { client: other, peer: relayed, channel: other_channel },
            ]
        } else {
            let socket = lab.peer.udp_socket((lab.addresses(relay_family).peer, 0).into())?;
            let peer = socket.local_addr()?;
            client.channel_bind(plan.channel, peer).context("ChannelBind")?;
            [Speaker::Client { client, peer, channel: plan.channel }, Speaker::Peer { socket, relayed }]
        };
        let now = Instant::now();
        let ends = speakers.map(|speaker| End {
            speaker,
            next_audio: now,
            next_frame: plan.kind.has_video().then_some(now),
            frames: 0,
            sent: 0,
            tally: Tally::default(),
        });
        Ok(Self { plan, ends, renewals: 0 })
    }

    /// Talks until the call or everything is over.
    pub fn talk(mut self, is_over: &AtomicBool) -> Outcome {
        let failure = self.go_on(is_over).err().map(|error| format!("{error:#}"));
        let [first, second] = self.ends;
        Outcome {
            plan: self.plan,
            sent: [first.sent, second.sent],
            // What one end has sent is what the other has received.
            tallies: [second.tally, first.tally],
            renewals: self.renewals,
            failure,
        }
    }

    fn go_on(&mut self, is_over: &AtomicBool) -> Result<()> {
        let start = Instant::now();
        let end = start + self.plan.length;
        let mut renewal = start + RENEWAL;
        while Instant::now() < end && !is_over.load(Ordering::Relaxed) {
            for at in 0..2 {
                self.ends[at].speak(self.stream_of(at), start)?;
            }
            if Instant::now() >= renewal {
                for end in &mut self.ends {
                    self.renewals += end.speaker.renew()?;
                }
                renewal += RENEWAL;
            }
            let due = self.ends.iter().map(End::due).min().unwrap_or(end).min(end).min(renewal);
            self.listen(due, start)?;
        }
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline
            && (self.ends[0].tally.received < self.ends[1].sent
                || self.ends[1].tally.received < self.ends[0].sent)
        {
            self.listen(deadline.min(Instant::now() + TICK), start)?;
        }
        if !self.plan.vanishes {
            for end in &mut self.ends {
                end.speaker.leave()?;
            }
        }
        Ok(())
    }

    /// Each direction is a stream of its own.
    fn stream_of(&self, end: usize) -> u32 {
        self.plan.stream << 1 | end as u32
    }

    /// Takes whatever comes until a time.
    fn listen(&mut self, until: Instant, start: Instant) -> Result<()> {
        loop {
            for at in 0..2 {
                let stream = self.stream_of(1 - at);
                while let Some(payload) = self.ends[at].speaker.receive()? {
                    self.ends[at].tally.count(stream, &payload, start);
                }
            }
            let left = until.saturating_duration_since(Instant::now()).min(TICK);
            if left.is_zero() {
                return Ok(());
            }
            let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let [first, second] = &self.ends;
            let mut sockets = [first, second]
                .map(|end| PollFd::from_borrowed_fd(end.speaker.socket().as_fd(), PollFlags::IN));
            match poll(&mut sockets, Some(&limit)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl End {
    /// When it has to send next.
    fn due(&self) -> Instant {
        self.next_frame.map_or(self.next_audio, |frame| frame.min(self.next_audio))
    }

    /// Sends what is due. What is late is not left out.
    fn speak(&mut self, stream: u32, start: Instant) -> Result<()> {
        let now = Instant::now();
        while self.next_audio <= now {
            self.send(stream, start, AUDIO_SIZE)?;
            self.next_audio += AUDIO_INTERVAL;
        }
        while let Some(frame) = self.next_frame.filter(|frame| *frame <= now) {
            let is_key_frame = self.frames.is_multiple_of(KEY_FRAME_EVERY);
            for _ in 0..if is_key_frame { KEY_FRAME_PACKETS } else { FRAME_PACKETS } {
                self.send(stream, start, VIDEO_SIZE)?;
            }
            self.frames += 1;
            self.next_frame = Some(frame + FRAME_INTERVAL);
        }
        Ok(())
    }

    fn send(&mut self, stream: u32, start: Instant, size: usize) -> Result<()> {
        let payload = Numbered { stream, number: self.sent, sent: start.elapsed() }.encode(size);
        match &self.speaker {
            Speaker::Client { client, channel, .. } => client.send_channel_data(*channel, &payload, &[])?,
            Speaker::Peer { socket, relayed } => socket.send_to(&payload, relayed).map(drop)?,
        }
        self.sent += 1;
        Ok(())
    }
}

impl Speaker {
    fn socket(&self) -> &UdpSocket {
        match self {
            Self::Client { client, .. } => client.socket(),
            Self::Peer { socket, .. } => socket,
        }
    }

    /// The next payload, if there is one.
    fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            match self {
                Self::Client { client, channel, .. } => match client.receive(Duration::ZERO)? {
                    None => return Ok(None),
                    Some(Received::ChannelData { channel: came_by, data, .. }) if came_by == *channel => {
                        return Ok(Some(data));
                    }
                    Some(Received::Response(_)) => {}
                    Some(other) => return Err(anyhow!("came to channel {channel:#06x}: {other:?}")),
                },
                Self::Peer { socket, relayed } => match datagram::receive(socket, Duration::ZERO)? {
                    None => return Ok(None),
                    Some((payload, source)) if source == *relayed => return Ok(Some(payload)),
                    Some((_, source)) => return Err(anyhow!("came from {source}, not {relayed}")),
                },
            }
        }
    }

    /// Renews the allocation, the permission and the channel; returns how many requests that took.
    fn renew(&mut self) -> Result<u64> {
        let Self::Client { client, peer, channel } = self else { return Ok(0) };
        client.refresh(600).context("Refresh")?;
        client.create_permission(&[*peer]).context("CreatePermission")?;
        client.channel_bind(*channel, *peer).context("ChannelBind")?;
        Ok(3)
    }

    fn leave(&mut self) -> Result<()> {
        if let Self::Client { client, .. } = self {
            client.refresh(0).context("Refresh with LIFETIME 0")?;
        }
        Ok(())
    }
}

fn allocate(
    lab: &Lab,
    namespace: &Namespace,
    address: SocketAddr,
    family: Family,
    relay: Family,
) -> Result<(TurnClient, SocketAddr)> {
    let socket = namespace.udp_socket(address)?;
    let mut client = TurnClient::new(socket, (lab.addresses(family).listen, PORT).into());
    let relayed = client.allocate(Some(relay), None).context("Allocate")?.relayed;
    Ok((client, relayed))
}
