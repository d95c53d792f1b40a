package ingest

import (
	"fmt"
	"net"
	"strings"
	"time"
)

// silence tells an engine that has nothing to say from one that should publish events and does not: its own counters
// show that it computed prompts, and no event came. The zero value has not looked yet.
type silence struct {
	looked bool
	heard  uint64    // events that had come at the last look
	since  time.Time // of the first look at which these had come
	from   float64   // tokens computed when they had all been told, once settled
	// settled: an engine counts a prompt a moment after the events of its last blocks, so what it counts until the look
	// after them belongs to them.
	settled bool
	on      bool
}

// look takes in how many events came and how many prompt tokens the engine has computed, both ever growing. proven says
// that the engine has been seen to publish whatever there is. It is silent when for as long as patience no event came
// and over limit tokens were computed.
func (s *silence) look(now time.Time, heard uint64, computed float64, proven bool, patience time.Duration, limit float64) {
	switch {
	case !s.looked || heard != s.heard || proven:
		fresh := proven || !s.looked && heard == 0
		*s = silence{looked: true, heard: heard, since: now, from: computed, settled: fresh}
	case !s.settled || computed < s.from: // less: the counters began anew
		s.from, s.settled = computed, true
	}
	s.on = s.settled && now.Sub(s.since) >= patience && computed-s.from > limit
}

// listen looks whether the engine is silent, and warns once when it becomes so.
func (k *keeper) listen(now time.Time, f *facts) {
	r := k.present()
	computed, counted := f.computed[k.rank.number]
	if r == nil || !counted || k.config.BlockSize <= 0 {
		return
	}
	t := k.source.service.cfg.times
	answered := r.answered.Load()
	// Without prefix caching nothing is published either, and replays prove nothing.
	proven := k.config.PrefixCaching.Value && answered != 0 && now.Sub(time.Unix(0, answered)) < 2*t.check
	k.mu.Lock()
	was := k.silence.on
	k.silence.look(now, r.heard.Load(), computed, proven, t.silent, float64(2*k.config.BlockSize))
	is := k.silence.on
	k.mu.Unlock()
	if is && !was {
		k.source.service.log.Warn("engine computes prompts but publishes no events: start it with these flags of vLLM, "+
			"and let this host reach the ports", "engine", k.rank.name, "flags", eventFlags(k.rank.engine))
	}
}

// silent says whether the engine is silent, up to the newest event.
func (k *keeper) silent() bool {
	r := k.present()
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.silence.on && r != nil && r.heard.Load() == k.silence.heard
}

// eventFlags are the flags with which vLLM publishes where e expects it.
func eventFlags(e Engine) string {
	port := func(endpoint, otherwise string) string {
		if _, p, err := net.SplitHostPort(strings.TrimPrefix(endpoint, "tcp://")); err == nil {
			return p
		}
		return otherwise
	}
	return fmt.Sprintf(`--enable-prefix-caching --kv-events-config '{"enable_kv_cache_events": true, "publisher": "zmq", `+
		`"endpoint": "tcp://*:%s", "replay_endpoint": "tcp://*:%s"}'`,
		port(e.Events, fmt.Sprint(eventsPort)), port(e.Replay, fmt.Sprint(replayPort)))
}
