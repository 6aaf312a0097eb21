// Two tabs of Chromium in a call with audio and video whose only candidates are relays of one TURN server.
// node chromium.mjs FOLDER_OF_NODE_MODULES SERVER USER PASSWORD SECONDS PROFILE

import { createRequire } from 'node:module';

const [modules, server, username, credential, seconds, profile] = process.argv.slice(2);
const { chromium } = createRequire(`${modules}/`)('playwright-core');

const context = await chromium.launchPersistentContext(profile, {
  executablePath: '/usr/bin/chromium',
  headless: true,
  chromiumSandbox: false,
  args: [
    '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--use-fake-device-for-media-stream',
    '--use-fake-ui-for-media-stream', '--autoplay-policy=no-user-gesture-required',
  ],
});
let failure = null;
try {
  // A page on localhost, which is allowed to have a camera; nothing is fetched.
  await context.route('**/*', (route) => route.fulfill({ contentType: 'text/html', body: '<title>call</title>' }));
  const pages = [];
  for (let number = 0; number < 2; number += 1) {
    const page = await context.newPage();
    await page.goto('http://localhost/');
    await page.evaluate(
      async ({ server, username, credential }) => {
        const connection = new RTCPeerConnection({
          iceServers: [{ urls: `turn:${server}?transport=udp`, username, credential }],
          iceTransportPolicy: 'relay',
        });
        const media = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width: 320, height: 240 } });
        for (const track of media.getTracks()) connection.addTrack(track, media);
        globalThis.connection = connection;
        // All candidates go with the description, so that there is one message each way.
        globalThis.described = async () => {
          await new Promise((done) => {
            const check = () => connection.iceGatheringState === 'complete' && done();
            connection.addEventListener('icegatheringstatechange', check);
            check();
          });
          return connection.localDescription.toJSON();
        };
      },
      { server, username, credential },
    );
    pages.push(page);
  }
  const [first, second] = pages;
  const offer = await first.evaluate(async () => {
    await connection.setLocalDescription(await connection.createOffer());
    return described();
  });
  if (!offer.sdp.includes('typ relay')) throw new Error('no relay candidate: the allocation failed');
  const answer = await second.evaluate(async (offer) => {
    await connection.setRemoteDescription(offer);
    await connection.setLocalDescription(await connection.createAnswer());
    return described();
  }, offer);
  await first.evaluate((answer) => connection.setRemoteDescription(answer), answer);
  for (const page of pages) {
    await page.waitForFunction(() => ['connected', 'failed'].includes(connection.connectionState), null, { timeout: 20000 });
    const state = await page.evaluate(() => connection.connectionState);
    if (state !== 'connected') throw new Error(`the connection is ${state}`);
  }
  await first.waitForTimeout(Number(seconds) * 1000);
  // No more media, so that what is under way arrives before it is counted.
  for (const page of pages) {
    await page.evaluate(() => connection.getSenders().forEach((sender) => sender.track?.stop()));
    await page.evaluate(() => Promise.all(connection.getSenders().map((sender) => sender.replaceTrack(null))));
  }
  await first.waitForTimeout(1500);
  const counts = [];
  for (const page of pages) {
    counts.push(
      await page.evaluate(async () => {
        const count = { sent: 0, received: 0, relays: 0, kinds: [] };
        for (const report of (await connection.getStats()).values()) {
          if (report.type === 'outbound-rtp') count.sent += report.packetsSent;
          if (report.type === 'inbound-rtp') {
            count.received += report.packetsReceived;
            if (report.packetsReceived > 0) count.kinds.push(report.kind);
          }
          if (report.type === 'transport') count.relays += report.packetsSent;
          // ICE's own checks go by the same channel.
          if (report.type === 'candidate-pair') {
            count.relays += report.requestsSent + report.responsesSent + report.consentRequestsSent;
          }
        }
        return count;
      }),
    );
  }
  for (const count of counts) {
    if (!count.kinds.includes('audio') || !count.kinds.includes('video')) throw new Error(`only ${count.kinds} came`);
  }
  const sum = (key) => counts.reduce((total, count) => total + count[key], 0);
  console.log(
    JSON.stringify({ sent: sum('sent'), received: sum('received'), duplicated: 0, altered: 0, relays: sum('relays') }),
  );
} catch (error) {
  failure = error;
} finally {
  await context.close();
}
if (failure) {
  console.error(String(failure));
  process.exit(1);
}
