//! The TURN client of webrtc-rs: a client with an echoing peer, or two clients with each other.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use interop_drivers::{GRACE, GREETING, GREETING_INTERVAL, Plan, Tally, WARM_UP, payload, report};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use turn::client::{Client, ClientConfig};
use webrtc_util::Conn;

#[tokio::main]
async fn main() -> Result<()> {
    let plan = Plan::from_arguments()?;
    let first = client(&plan).await?;
    let first_relay = Arc::new(first.allocate().await?);
    match plan.peer {
        Some(peer) => {
            let tally = Arc::new(Mutex::new(Tally::new(1)));
            tokio::spawn(hear(Arc::clone(&first_relay), Arc::clone(&tally)));
            let greetings = speak(Arc::clone(&first_relay), peer, plan.clone(), 1).await?;
            sleep(GRACE).await;
            report(&plan, plan.packets(), greetings, &[&tally.lock().unwrap()]);
        }
        None => {
            let second = client(&plan).await?;
            let second_relay = Arc::new(second.allocate().await?);
            let (to_second, to_first) = (second_relay.local_addr()?, first_relay.local_addr()?);
            let tallies = [1, 2].map(|stream| Arc::new(Mutex::new(Tally::new(stream))));
            tokio::spawn(hear(Arc::clone(&second_relay), Arc::clone(&tallies[0])));
            tokio::spawn(hear(Arc::clone(&first_relay), Arc::clone(&tallies[1])));
            let other = tokio::spawn(speak(second_relay, to_first, plan.clone(), 2));
            let greetings = speak(first_relay, to_second, plan.clone(), 1).await? + other.await??;
            sleep(GRACE).await;
            let [first_tally, second_tally] = &tallies;
            report(
                &plan,
                2 * plan.packets(),
                greetings,
                &[&first_tally.lock().unwrap(), &second_tally.lock().unwrap()],
            );
            let _gone = timeout(Duration::from_secs(2), second.close()).await;
        }
    }
    let _gone = timeout(Duration::from_secs(2), first.close()).await;
    Ok(())
}

async fn client(plan: &Plan) -> Result<Client> {
    let socket = UdpSocket::bind((plan.local, 0)).await?;
    let client = Client::new(ClientConfig {
        stun_serv_addr: plan.server.to_string(),
        turn_serv_addr: plan.server.to_string(),
        username: plan.user.clone(),
        password: plan.password.clone(),
        realm: plan.realm.clone(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::new(socket),
        vnet: None,
    })
    .await?;
    client.listen().await?;
    Ok(client)
}

/// Returns the number of greetings.
async fn speak(relay: Arc<impl Conn>, to: SocketAddr, plan: Plan, stream: u32) -> Result<u64> {
    let warm = Instant::now() + WARM_UP;
    let mut greetings = 0;
    while Instant::now() < warm {
        greetings += 1;
        relay.send_to(GREETING, to).await?;
        sleep(GREETING_INTERVAL).await;
    }
    let start = Instant::now();
    for number in 0..plan.packets() {
        relay.send_to(&payload(stream, number), to).await?;
        sleep_until(start + plan.interval() * (number as u32 + 1)).await;
    }
    Ok(greetings)
}

async fn hear(relay: Arc<impl Conn>, tally: Arc<Mutex<Tally>>) {
    let mut buffer = vec![0; 65536];
    while let Ok((length, _)) = relay.recv_from(&mut buffer).await {
        tally.lock().unwrap().count(&buffer[..length]);
    }
}
