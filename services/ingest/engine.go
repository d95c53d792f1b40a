package ingest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvwire"
)

// Engine says where an engine is: the value of --engine, or an entry of --engines-file.
type Engine struct {
	URL     string        // OpenAI base URL without /v1
	Name    string        // as the operator knows it; empty means host:port of URL
	Events  string        // endpoint of rank 0's PUB socket; empty where the engine publishes no events
	Replay  string        // endpoint of rank 0's replay socket; empty where it has none
	Role    fleet.Role    // empty means both
	Ranks   int           // data-parallel size; rank r publishes r ports above rank 0; 0 means 1
	Rank    int           // of an entry that is one rank alone, at a URL that other ranks share; then Ranks is 1
	Sidecar fleet.Sidecar // stands before the engine at URL
	KeyFile string        // holds the engine's API key; empty means the environment's VLLM_API_KEY
}

// EngineUsage describes the value of --engine.
const EngineUsage = "`URL` of an engine, with options: URL[,events=tcp://H:5557][,replay=tcp://H:5558][,role=prefill|decode|both]" +
	"[,ranks=N][,sidecar=llm-d][,key-file=F]; may be given again; events=none for an engine without KV events"

const (
	eventsPort = 5557 // vLLM's default
	replayPort = 5558 // the convention; vLLM has no default
	maxRanks   = 1024
)

// ParseEngine reads the value of --engine. Events and replay default to ports 5557 and 5558 of the URL's host.
func ParseEngine(value string) (Engine, error) {
	parts := strings.Split(value, ",")
	if at := strings.LastIndexByte(parts[0], '@'); at >= 0 {
		return Engine{}, fmt.Errorf("--engine ...%s: a URL does not hold credentials; give a key with key-file=", parts[0][at:])
	}
	host, base, err := parseURL(parts[0])
	if err != nil {
		return Engine{}, fmt.Errorf("--engine %s: %w", parts[0], err)
	}
	e := Engine{URL: base, Role: fleet.Both, Ranks: 1,
		Events: "tcp://" + net.JoinHostPort(host, strconv.Itoa(eventsPort)),
		Replay: "tcp://" + net.JoinHostPort(host, strconv.Itoa(replayPort))}
	for _, option := range parts[1:] {
		name, v, found := strings.Cut(option, "=")
		if !found || v == "" {
			return Engine{}, fmt.Errorf("--engine %s: option %q is not name=value", parts[0], option)
		}
		if err := e.set(name, v); err != nil {
			return Engine{}, fmt.Errorf("--engine %s: %w", parts[0], err)
		}
	}
	if e.Events == "" {
		e.Replay = ""
	}
	if err := e.check(); err != nil {
		return Engine{}, fmt.Errorf("--engine %s: %w", parts[0], err)
	}
	return e, nil
}

func (e *Engine) set(name, v string) error {
	switch name {
	case "events":
		e.Events = none(v)
	case "replay":
		e.Replay = none(v)
	case "role":
		e.Role = fleet.Role(v)
	case "ranks":
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return fmt.Errorf("ranks=%s: want a number of 1 or more", v)
		}
		e.Ranks = n
	case "sidecar":
		e.Sidecar = fleet.Sidecar(v)
	case "key-file":
		e.KeyFile = v
	default:
		return fmt.Errorf("unknown option %q: want events, replay, role, ranks, sidecar or key-file", name)
	}
	return nil
}

func none(v string) string {
	if v == "none" {
		return ""
	}
	return v
}

func parseURL(s string) (host, base string, err error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "", "", errors.New("not a URL")
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "", "", errors.New("want http://HOST:PORT")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", "", errors.New("a URL with user, query or fragment is not an engine's")
	}
	return u.Hostname(), strings.TrimSuffix(strings.TrimSuffix(s, "/"), "/v1"), nil
}

// check refuses what cannot work, whichever form it came in.
func (e *Engine) check() error {
	switch e.Role {
	case fleet.Prefill, fleet.Decode, fleet.Both:
	default:
		return fmt.Errorf("role=%s: want prefill, decode or both", e.Role)
	}
	if e.Sidecar != fleet.NoSidecar && e.Sidecar != fleet.LLMD {
		return fmt.Errorf("sidecar=%s: want llm-d", e.Sidecar)
	}
	if e.Ranks < 1 || e.Ranks > maxRanks || e.Rank < 0 || e.Rank > maxRanks {
		return fmt.Errorf("ranks=%d: want 1 to %d", e.Ranks, maxRanks)
	}
	for r := range e.Ranks {
		for _, endpoint := range []string{e.Events, e.Replay} {
			at, err := atRank(endpoint, r)
			if err != nil {
				return err
			}
			if at != "" && at == e.Events && r > 0 {
				return fmt.Errorf("%d ranks need %d ports each for events and replay, but %s would be both; move replay further away", e.Ranks, e.Ranks, at)
			}
		}
		if at, _ := atRank(e.Events, r); at != "" && at == e.Replay {
			return fmt.Errorf("events of rank %d and replay of rank 0 would both be %s; they need ports of their own", r, at)
		}
	}
	return nil
}

// atRank is a rank's endpoint: vLLM adds the rank to the port.
func atRank(endpoint string, rank int) (string, error) {
	if endpoint == "" {
		return "", nil
	}
	if err := kvwire.Check(endpoint); err != nil {
		return "", err
	}
	address, isTCP := strings.CutPrefix(endpoint, "tcp://")
	host, port, err := net.SplitHostPort(address)
	n, numErr := strconv.Atoi(port)
	if !isTCP || err != nil || numErr != nil || host == "" || host == "*" || n < 1 || n+rank > 65535 {
		return "", fmt.Errorf("endpoint %s: want tcp://HOST:PORT, where HOST is one to connect to", endpoint)
	}
	return "tcp://" + net.JoinHostPort(host, strconv.Itoa(n+rank)), nil
}

// usable returns the engines with their defaults, or why they cannot be read.
func usable(engines []Engine) ([]Engine, error) {
	engines = slices.Clone(engines)
	for i := range engines {
		e := &engines[i]
		e.Ranks, e.Role = max(e.Ranks, 1), cmp.Or(e.Role, fleet.Both)
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("engine %s: %w", e.URL, err)
		}
	}
	return engines, distinct(engines)
}

// distinct refuses engines that would be taken for one another.
func distinct(engines []Engine) error {
	seen := map[string]int{} // endpoint -> engine
	urls := map[string]int{}
	for i, e := range engines {
		id := fmt.Sprintf("%s rank %d", e.URL, e.Rank)
		if _, twice := urls[id]; twice {
			return fmt.Errorf("engine %s is given twice", id)
		}
		urls[id] = i
		for r := range e.Ranks {
			at, err := atRank(e.Events, r)
			if err != nil {
				return fmt.Errorf("engine %s: %w", e.URL, err)
			}
			if at == "" {
				continue
			}
			if j, taken := seen[at]; taken {
				return collision(engines[j], e, at)
			}
			seen[at] = i
		}
	}
	return nil
}

func collision(a, b Engine, endpoint string) error {
	first := eventsPort + 10
	flags := eventFlags(Engine{Events: fmt.Sprintf("tcp://*:%d", first), Replay: fmt.Sprintf("tcp://*:%d", first+1)})
	return fmt.Errorf(`engines %s and %s would both publish events at %s; two engines on one host need two ports. Start the second with
  %s
and give it as
  --engine %s,events=tcp://HOST:%d,replay=tcp://HOST:%d`,
		a.URL, b.URL, endpoint, flags, b.URL, first, first+1)
}

// ReadEngines reads --engines-file: the JSON that `loadgen engines --ready-file` writes.
func ReadEngines(path string) ([]Engine, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read engines file: %w", err)
	}
	var file struct {
		Engines []struct {
			Name, URL, Events, Replay string
			Role                      fleet.Role
			Sidecar                   fleet.Sidecar
			Rank                      int `json:"dp_rank"`
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("read engines file %s: %w", path, err)
	}
	var engines []Engine
	for i, entry := range file.Engines {
		_, base, err := parseURL(entry.URL)
		e := Engine{URL: base, Name: entry.Name, Events: entry.Events, Replay: entry.Replay,
			Role: cmp.Or(entry.Role, fleet.Both), Rank: entry.Rank, Ranks: 1, Sidecar: entry.Sidecar}
		if err = cmp.Or(err, e.check()); err != nil {
			return nil, fmt.Errorf("engines file %s, engine %d (%s): %w", path, i, entry.Name, err)
		}
		engines = append(engines, e)
	}
	if len(engines) == 0 {
		return nil, fmt.Errorf("engines file %s holds no engine", path)
	}
	return engines, nil
}

// A rank is one KV cache of an engine: what has an id and a stream of events.
type rank struct {
	engine         Engine
	number, of     int
	id, name       string
	events, replay string
}

// ranks lists the ranks of an engine that check has passed.
func (e *Engine) ranks() []rank {
	u, err := url.Parse(e.URL)
	if err != nil {
		return nil
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		port = map[string]int{"http": 80, "https": 443}[u.Scheme]
	}
	name := cmp.Or(e.Name, net.JoinHostPort(u.Hostname(), strconv.Itoa(port)))
	var all []rank
	for r := range e.Ranks {
		k := rank{engine: *e, number: e.Rank + r, of: max(e.Ranks, e.Rank+1), name: name}
		if k.of > 1 {
			k.name += "-r" + strconv.Itoa(k.number)
		}
		k.id = fleet.EngineIDFromURL(u.Hostname(), port, k.number)
		k.events, _ = atRank(e.Events, r)
		k.replay, _ = atRank(e.Replay, r)
		all = append(all, k)
	}
	return slices.Clip(all)
}
