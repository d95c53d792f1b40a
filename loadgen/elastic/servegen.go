package elastic

import (
	"bufio"
	"container/heap"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Rates in the format of ServeGen (arXiv 2505.09999): for each client and window of 600 s a rate and the distribution of
// the times between requests; for some clients and windows of 6 h the distributions of lengths.
const (
	rateWindow   = 600 * time.Second
	lengthWindow = 6 * time.Hour
	mostClients  = 4096
	burstiest    = 5. // coefficient of variation of times between requests, at most
	wholeDay     = 24 * time.Hour
	tenthDay     = 9 * wholeDay
	// The rate and lengths at which a day of m-large keeps up to 40 replicas of a role busy with few enough requests: four
	// tenths of the requests, three times as long.
	dayRate, dayLength = .4, 3.
)

// days are clients that come and go.
type days struct {
	clients []client
	lengths []lengths // of sampled clients; others take those of one of them
}

// client is one of many, with its windows in order of time.
type client struct {
	name    string
	windows []window
}

type window struct {
	at      time.Duration
	rate    float64
	weibull bool // else gamma
	shape   float64
}

// lengths are those of one client by windows of 6 h.
type lengths struct{ input, output []distribution }

// distribution draws lengths.
type distribution struct {
	tokens []int
	until  []float64 // cumulated
}

func (d *distribution) draw(rng *rand.Rand) float64 {
	i, _ := slices.BinarySearch(d.until, rng.Float64()*d.until[len(d.until)-1])
	return float64(d.tokens[min(i, len(d.tokens)-1)])
}

// days is a workload of such rates.
func (s *Source) days(name, what string, d days) Work {
	from, to := s.From, s.To
	if to == 0 {
		from, to = tenthDay, tenthDay+wholeDay
	}
	rate := s.Rate
	if rate == 0 {
		rate = dayRate
	}
	return Work{
		Name: name, Until: to - from, Rate: rate,
		What: fmt.Sprintf("%s, %v to %v, requests x%g, their lengths x%g", what, from, to, rate, dayLength),
		Requests: func(seed uint64) func() (Request, bool) {
			m := newMerge(d, from, to, rate, seed)
			return m.next
		},
	}
}

// merge is all clients' requests in order of time.
type merge struct {
	from    time.Duration
	streams []*stream // a heap
}

// stream is one client's requests.
type stream struct {
	client  *client
	lengths *lengths
	rng     *rand.Rand
	rate    float64
	to      time.Duration
	window  int
	at      time.Duration // of the next
	number  int
}

func newMerge(d days, from, to time.Duration, rate float64, seed uint64) *merge {
	m := &merge{from: from}
	for i := range d.clients {
		c := &d.clients[i]
		h := fnv.New64a()
		h.Write([]byte(c.name))
		s := &stream{client: c, rng: rand.New(rand.NewPCG(seed, h.Sum64())), rate: rate, to: to, number: i}
		s.lengths = &d.lengths[h.Sum64()%uint64(len(d.lengths))]
		s.window, _ = slices.BinarySearchFunc(c.windows, from, func(w window, t time.Duration) int { return int(w.at - t) })
		if s.enter() {
			m.streams = append(m.streams, s)
		}
	}
	heap.Init(m)
	return m
}

func (m *merge) Len() int { return len(m.streams) }
func (m *merge) Less(i, j int) bool {
	a, b := m.streams[i], m.streams[j]
	return a.at < b.at || a.at == b.at && a.number < b.number
}
func (m *merge) Swap(i, j int) { m.streams[i], m.streams[j] = m.streams[j], m.streams[i] }
func (m *merge) Push(x any)    { m.streams = append(m.streams, x.(*stream)) }

// Pop implements heap.Interface.
func (m *merge) Pop() any {
	last := m.streams[len(m.streams)-1]
	m.streams = m.streams[:len(m.streams)-1]
	return last
}

func (m *merge) next() (Request, bool) {
	if len(m.streams) == 0 {
		return Request{}, false
	}
	s := m.streams[0]
	r := s.request()
	r.At -= m.from
	if s.advance() {
		heap.Fix(m, 0)
	} else {
		heap.Pop(m)
	}
	return r, true
}

// enter begins the window; its first request comes within one mean gap. False after the last.
func (s *stream) enter() bool {
	for ; s.window < len(s.client.windows); s.window++ {
		w := &s.client.windows[s.window]
		if w.at >= s.to {
			return false
		}
		s.at = w.at + time.Duration(s.rng.Float64()/(w.rate*s.rate)*float64(time.Second))
		if s.at < w.at+rateWindow && s.at < s.to {
			return true
		}
	}
	return false
}

// advance goes to the next request.
func (s *stream) advance() bool {
	w := &s.client.windows[s.window]
	s.at += time.Duration(w.gap(s.rng) / (w.rate * s.rate) * float64(time.Second))
	if s.at < min(w.at+rateWindow, s.to) {
		return true
	}
	s.window++
	return s.enter()
}

func (s *stream) request() Request {
	at := int(s.at / lengthWindow)
	in, out := &s.lengths.input[at%len(s.lengths.input)], &s.lengths.output[at%len(s.lengths.output)]
	return Request{At: s.at, Prompt: int(max(1, dayLength*in.draw(s.rng))), Output: int(max(1, dayLength*out.draw(s.rng)))}
}

// gap draws a time between two requests, of mean 1.
func (w *window) gap(rng *rand.Rand) float64 {
	if w.weibull {
		return math.Pow(rng.ExpFloat64(), 1/w.shape) / math.Gamma(1+1/w.shape)
	}
	return gamma(rng, w.shape) / w.shape
}

// gamma draws from a gamma distribution of scale 1 (Marsaglia and Tsang, 2000).
func gamma(rng *rand.Rand, shape float64) float64 {
	if shape < 1 {
		return gamma(rng, shape+1) * math.Pow(rng.Float64(), 1/shape)
	}
	d := shape - 1./3
	c := 1 / math.Sqrt(9*d)
	for {
		x := rng.NormFloat64()
		v := 1 + c*x
		if v = v * v * v; v > 0 && math.Log(1-rng.Float64()) < .5*x*x+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}

// openDays reads rates, and lengths that lie beside them where no file is named.
func openDays(rates, sizes string) (d days, err error) {
	if sizes == "" {
		sizes = strings.Replace(rates, "_rates.csv", "_lengths_sample.jsonl", 1)
		if sizes == rates {
			return d, errors.New("rates in ServeGen's format need --lengths FILE")
		}
	}
	if err := read(rates, func(r *bufio.Reader) error { return d.readRates(r) }); err != nil {
		return d, err
	}
	return d, read(sizes, func(r *bufio.Reader) error { return d.readLengths(r) })
}

func read(path string, do func(*bufio.Reader) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open trace: %w", err)
	}
	defer f.Close()
	r, err := unzipped(f)
	if err == nil {
		err = do(r)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", filepath.Base(path), err)
	}
	return nil
}

func (d *days) readRates(r io.Reader) error {
	lines := csv.NewReader(r)
	lines.FieldsPerRecord, lines.ReuseRecord = 7, true
	at := map[string]int{}
	for n := 1; ; n++ {
		f, err := lines.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if n == 1 {
			continue
		}
		w, err := parseWindow(f)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		i, ok := at[f[0]]
		if !ok {
			if i = len(d.clients); i == mostClients {
				return fmt.Errorf("line %d: more than %d clients", n, mostClients)
			}
			at[f[0]] = i
			d.clients = append(d.clients, client{name: strings.Clone(f[0])})
		}
		if w.rate > 0 {
			d.clients[i].windows = append(d.clients[i].windows, w)
		}
	}
	for i := range d.clients {
		slices.SortFunc(d.clients[i].windows, func(a, b window) int { return int(a.at - b.at) })
	}
	if len(d.clients) == 0 {
		return errors.New("no rates")
	}
	return nil
}

func parseWindow(f []string) (w window, err error) {
	var v [5]float64 // t_s, rate_rps, iat_cv, p1, p2
	for i, text := range []string{f[1], f[2], f[3], f[5], f[6]} {
		if v[i], err = strconv.ParseFloat(text, 64); err != nil || math.IsNaN(v[i]) || v[i] < 0 || v[i] > 1e9 {
			return w, fmt.Errorf("%q is no number from 0 to 1e9", text)
		}
	}
	w = window{at: time.Duration(v[0] * float64(time.Second)), rate: v[1], weibull: f[4] == "Weibull", shape: v[3]}
	least := 1 / (burstiest * burstiest)
	if w.weibull {
		least = .33 // of about that variation
	}
	if w.shape = max(w.shape, least); w.rate > 1e5 {
		return w, fmt.Errorf("rate %g is above 1e5 requests/s", w.rate)
	}
	return w, nil
}

func (d *days) readLengths(r io.Reader) error {
	type entry struct {
		Client string  `json:"client"`
		At     float64 `json:"t_s"`
		Input  string  `json:"input_tokens"`
		Output string  `json:"output_tokens"`
	}
	of := map[string][]entry{}
	for lines := json.NewDecoder(r); ; {
		var e entry
		if err := lines.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		of[e.Client] = append(of[e.Client], e)
	}
	var names []string
	for name := range of {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		all := of[name]
		slices.SortFunc(all, func(a, b entry) int { return int(a.At - b.At) })
		var l lengths
		for _, e := range all {
			in, err := parseDistribution(e.Input)
			if err != nil {
				return fmt.Errorf("client %s: %w", name, err)
			}
			out, err := parseDistribution(e.Output)
			if err != nil {
				return fmt.Errorf("client %s: %w", name, err)
			}
			l.input, l.output = append(l.input, in), append(l.output, out)
		}
		d.lengths = append(d.lengths, l)
	}
	if len(d.lengths) == 0 {
		return errors.New("no lengths")
	}
	return nil
}

// parseDistribution reads a printed dict, {71: 0.0002, 72: 0.03}.
func parseDistribution(text string) (d distribution, err error) {
	sum := 0.
	for _, pair := range strings.Split(strings.Trim(text, "{} "), ",") {
		key, value, ok := strings.Cut(pair, ":")
		n, err := strconv.ParseFloat(strings.TrimSpace(key), 64)
		if !ok || err != nil || !(n >= 0 && n <= 1<<21) {
			return d, fmt.Errorf("%q is no length and its probability", pair)
		}
		p, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || !(p >= 0 && p <= 1e9) {
			return d, fmt.Errorf("%q is no length and its probability", pair)
		}
		sum += p
		d.tokens, d.until = append(d.tokens, int(n)), append(d.until, sum)
	}
	if !(sum > 0) {
		return d, errors.New("probabilities sum to nothing")
	}
	return d, nil
}

// ordinaryDays are forty clients whose rates follow the hours of the day.
func ordinaryDays() (d days) {
	rng := rand.New(rand.NewPCG(1, 0xda75))
	for i := range 40 {
		c := client{name: fmt.Sprintf("client-%d", i)}
		mean, phase, swing := .5+9.5*rng.Float64()*rng.Float64(), rng.Float64()*4, .3+.5*rng.Float64()
		for at := time.Duration(0); at < 14*wholeDay; at += rateWindow {
			rate := mean * (1 + swing*math.Sin(2*math.Pi*(at.Hours()+phase-9)/24)) * math.Exp(.15*rng.NormFloat64())
			c.windows = append(c.windows, window{at: at, rate: rate, shape: .25 + rng.Float64()})
		}
		d.clients = append(d.clients, c)
	}
	for _, mean := range [][2]float64{{600, 450}, {1200, 150}, {100, 900}} {
		var l lengths
		for _, m := range mean {
			var x distribution
			for i := range 200 {
				x.tokens, x.until = append(x.tokens, wide(rng, m, .8)), append(x.until, float64(i+1))
			}
			if l.input == nil {
				l.input = []distribution{x}
			} else {
				l.output = []distribution{x}
			}
		}
		d.lengths = append(d.lengths, l)
	}
	return d
}
