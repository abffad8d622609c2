//! The prober: a thread that sends one packet of every flow each millisecond and notes which ones arrive, and one that
//! connects by TCP at a lower rate.
//!
//! Wrong verdicts are told by sequence numbers alone: sender and receiver are one thread with one list, receivers have
//! buffers for seconds, and the end of a window waits until nothing is left to read. So a packet that is missing was not
//! lost by the harness, which the run without moat checks.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::connects;
use super::flows::{Flow, Place, Source, address};
use super::net::Net;
use super::tally::{Mark, Tally, Window};
use super::wire::{self, Label, PAYLOAD, Template};

const TICK: Duration = Duration::from_millis(1);
/// Ticks between two looks at the receivers.
const DRAIN: u32 = 10;
/// Looks without sending after which nothing is under way any more.
const QUIET: u32 = 3;
const PAUSE: Duration = Duration::from_millis(5);
/// Before everything that has work to do, or there would be no packet in each millisecond.
const PRIORITY: i32 = -10;

/// The threads, and what they share with the one that makes faults.
pub struct Prober {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    flows: Vec<Flow>,
}

/// What the threads share.
pub struct Shared {
    state: Mutex<State>,
    /// Whether nothing can arrive now for a reason that is not a verdict: an interface is away.
    pub excused: AtomicBool,
}

/// Whether packets are sent, and what is known of them.
pub struct State {
    /// The current window.
    pub window: Window,
    /// Whether packets are sent.
    pub sending: bool,
    /// Whether the flows that begin before a window are to be begun.
    opening: bool,
    /// Looks since sending ended.
    quiet: u32,
    /// Whether no connect is under way.
    pub connects_done: bool,
    /// The end of the threads.
    pub stop: bool,
}

impl Shared {
    /// The state, also after a panic of the other thread.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Prober {
    /// Makes all sockets and starts the threads; nothing is sent yet. With `in_turn` each millisecond has one packet of each
    /// class, of one family and then of the other; otherwise of both.
    ///
    /// # Errors
    /// A socket cannot be made.
    pub fn start(net: &Net, in_turn: bool) -> Result<Prober, String> {
        let flows = Flow::all();
        let state = State {
            window: Window::new(0, flows.len()),
            sending: false,
            opening: false,
            quiet: 0,
            connects_done: true,
            stop: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            excused: AtomicBool::new(false),
        });
        let sockets = Sockets::open(net, &flows, in_turn)?;
        let datagrams = Arc::clone(&shared);
        let sender = thread::spawn(move || sockets.serve(&datagrams));
        let connects = connects::start(net, Arc::clone(&shared))?;
        Ok(Prober {
            shared,
            threads: vec![sender, connects],
            flows,
        })
    }

    /// Begins a window.
    pub fn begin(&self) {
        self.excuse(false);
        let mut state = self.shared.lock();
        state.opening = true;
        drop(state);
        while self.shared.lock().opening {
            thread::sleep(PAUSE);
        }
        let mut state = self.shared.lock();
        state.window = Window::new(state.window.run + 1, self.flows.len());
        state.sending = true;
    }

    /// From now on it is no wrong verdict that an allowed packet does not arrive, or again it is.
    pub fn excuse(&self, excused: bool) {
        self.shared.excused.store(excused, Ordering::SeqCst);
    }

    /// Ends the window and counts it. With `all_allowed` nothing is enforced.
    pub fn end(&self, all_allowed: bool) -> Tally {
        let mut state = self.shared.lock();
        (state.sending, state.quiet) = (false, 0);
        drop(state);
        loop {
            thread::sleep(PAUSE);
            let state = self.shared.lock();
            if state.quiet >= QUIET && state.connects_done {
                return Tally::of(&state.window, &self.flows, all_allowed);
            }
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        for thread in self.threads.drain(..) {
            // Its panic has been printed.
            let _ = thread.join();
        }
    }
}

/// Senders and receivers.
struct Sockets {
    /// Whether the families take turns.
    in_turn: bool,
    /// For each flow its packet, the place of its sender among `senders`, and whether it is allowed.
    flows: Vec<(Template, usize, bool)>,
    senders: Vec<((Place, usize), OwnedFd)>,
    receivers: Vec<(SocketAddr, UdpSocket)>,
    /// Flow, socket of the receiving side, address of the sending side.
    known: Vec<(usize, UdpSocket, SocketAddr)>,
    /// They take the answers that begin a flow.
    _sinks: Vec<UdpSocket>,
}

impl Sockets {
    fn open(net: &Net, flows: &[Flow], in_turn: bool) -> Result<Sockets, String> {
        let mut sockets = Sockets {
            in_turn,
            flows: Vec::new(),
            senders: Vec::new(),
            receivers: Vec::new(),
            known: Vec::new(),
            _sinks: Vec::new(),
        };
        for place in [Place::Outside, Place::Host] {
            for family in [0, 1] {
                let socket = net.at(place).enter(|| wire::sender(family));
                let socket = socket.map_err(|e| format!("raw socket: {e}"))?;
                sockets.senders.push(((place, family), socket));
            }
        }
        for (number, flow) in flows.iter().enumerate() {
            sockets.open_flow(net, number, flow)?;
        }
        Ok(sockets)
    }

    fn open_flow(&mut self, net: &Net, number: usize, flow: &Flow) -> Result<(), String> {
        let from = (flow.class.from, flow.family);
        let sender = self.senders.iter().position(|(key, _)| *key == from);
        let sender = sender.ok_or("a place without sender")?;
        self.flows
            .push((Template::new(flow), sender, flow.class.allowed));
        let target = SocketAddr::new(flow.dst(), flow.class.port);
        if !self.receivers.iter().any(|(at, _)| *at == target) {
            let socket = receiver(net, flow.class.to, target)?;
            self.receivers.push((target, socket));
        }
        if let Source::Established(port) | Source::Reply(port) = flow.class.source {
            let source = SocketAddr::new(address(flow.class.src[flow.family]), port);
            self._sinks.push(receiver(net, flow.class.from, source)?);
            let (_, receiver) = &self.receivers[self.receivers.len() - 1];
            let receiver = receiver.try_clone().map_err(|e| e.to_string())?;
            self.known.push((number, receiver, source));
        }
        Ok(())
    }

    fn serve(mut self, shared: &Shared) {
        // For this thread alone; where it is refused, fewer packets are sent.
        let _ = rustix::process::setpriority_process(None, PRIORITY);
        let mut next = Instant::now();
        let mut count = 0_u32;
        loop {
            // What is late is not made up for: bursts could overflow queues of the kernel.
            next = (next + TICK).max(Instant::now());
            thread::sleep(next - Instant::now());
            let mut state = shared.lock();
            if state.stop {
                return;
            }
            if state.opening {
                self.begin_known();
                state.opening = false;
            }
            if state.sending {
                let excused = shared.excused.load(Ordering::SeqCst);
                self.send(&mut state.window, excused);
            }
            count = count.wrapping_add(1);
            if count.is_multiple_of(DRAIN) {
                self.drain(&mut state.window);
                state.quiet += u32::from(!state.sending);
            }
        }
    }

    /// Begins the flows that last: from the receiver's side, or from the sender's with an answer.
    fn begin_known(&mut self) {
        for (flow, receiver, source) in &self.known {
            let (template, sender, _) = &mut self.flows[*flow];
            let label = Label {
                flow: *flow as u16,
                run: 0,
                tick: 0,
            };
            // A rule may refuse what the flow does not need any more; otherwise the count shows it.
            let _ = template.send(&self.senders[*sender].1, label);
            let _ = receiver.send_to(&[0; PAYLOAD], source);
        }
    }

    fn send(&mut self, window: &mut Window, excused: bool) {
        let tick = window.ticks.len() as u32;
        window.ticks.push((Instant::now(), excused));
        for (number, (template, sender, allowed)) in self.flows.iter_mut().enumerate() {
            // Flows of both families of a class stand next to each other.
            if self.in_turn && number % 2 != tick as usize % 2 {
                window.marks[number].push(Mark::NotSent);
                continue;
            }
            window.marks[number].push(Mark::Missing);
            let label = Label {
                flow: number as u16,
                run: window.run,
                tick,
            };
            let sent = template.send(&self.senders[*sender].1, label);
            if let (Err(error), true, false) = (sent, *allowed, excused) {
                let text = || format!("flow {number}, tick {tick}: {error}");
                window.send_error.get_or_insert_with(text);
            }
        }
    }

    fn drain(&self, window: &mut Window) {
        let mut buffer = [0; 64];
        for (_, receiver) in &self.receivers {
            while let Ok(length) = receiver.recv(&mut buffer) {
                let Some(label) = Label::read(&buffer[..length]) else {
                    continue;
                };
                if label.run == window.run
                    && let Some(marks) = window.marks.get_mut(usize::from(label.flow))
                    && let Some(mark) = marks.get_mut(label.tick as usize)
                {
                    *mark = Mark::Arrived;
                }
            }
        }
    }
}

fn receiver(net: &Net, place: Place, at: SocketAddr) -> Result<UdpSocket, String> {
    let open = || {
        let socket = UdpSocket::bind(at)?;
        socket.set_nonblocking(true)?;
        wire::enlarge(&socket)?;
        Ok(socket)
    };
    net.at(place)
        .enter(open)
        .map_err(|e: std::io::Error| format!("receiver at {at}: {e}"))
}
