package hop

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/warmpath/warmpath/loadgen/process"
)

// Floor is what a proxy costs that only passes bytes on, where the router stands: what of the router's figures is the
// machine's and the standard library's.
type Floor struct {
	Proxy   string    `json:"proxy"`         // splice: two sockets and two goroutines; reverse: httputil.ReverseProxy
	Added   Quantiles `json:"added_ttfb_us"` // at 8,192 bytes, one connection, at the rate
	Rate    float64   `json:"rate"`
	CPU     float64   `json:"cpu_us"`       // of its process, for each such request
	ChunkUS float64   `json:"sse_chunk_us"` // as Figures.ChunkUS
}

// proxies are the kinds of Floor.Proxy.
var proxies = []string{"splice", "reverse"}

// floor measures each proxy as rows and chunks measure the router, in a process of its own.
func floor(ctx context.Context, l *lab, o Options, f *Figures) error {
	f.Floors = nil
	for _, kind := range proxies {
		var address string
		p, err := l.spawn(ctx, o.Self, kind, floorConfig{Engine: l.engines[0]}, &address)
		if err != nil {
			return err
		}
		one, err := l.floor(ctx, p, address, o)
		for range 4 { // the standard library's proxy cuts an answer short now and then, whose cause was not found
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			one, err = l.floor(ctx, p, address, o)
		}
		if err != nil {
			return err
		}
		one.Proxy = kind
		f.Floors = append(f.Floors, one)
	}
	return nil
}

func (l *lab) floor(ctx context.Context, p *process.Process, address string, o Options) (f Floor, err error) {
	if f.Rate, err = l.closedRate(ctx, address); err != nil {
		return f, err
	}
	f.Rate /= 4 // the engine and it share the cores with nobody else, and still answer no faster for it
	each := max(1, o.Requests/rounds)
	var straight, through []float64
	for range rounds {
		loop := openLoop{lab: l, size: 8192, connections: 1, each: each, rate: f.Rate}
		straight, err = add(straight, loop.run(ctx, direct), err)
		before, e := p.CPU()
		loop.at = address
		through, err = add(through, loop.run(ctx, direct), errors.Join(err, e))
		after, e := p.CPU()
		f.CPU, err = f.CPU+1e6*(after-before)/float64(each*rounds), errors.Join(err, e)
	}
	d, t := quantiles(straight), quantiles(through)
	f.Added = Quantiles{P50: t.P50 - d.P50, P99: t.P99 - d.P99}
	if err == nil {
		f.ChunkUS, err = chunkCost(l, flow{address, direct, 2048}, o, p.CPU)
	}
	return f, err
}

// closedRate is how many requests of 8,192 bytes a second one connection makes through a proxy.
func (l *lab) closedRate(ctx context.Context, address string) (float64, error) {
	c := newConnection(address)
	defer c.close()
	const n = 200
	began := time.Now()
	for range n {
		if _, err := c.do(l.task(8192, direct)); err != nil || ctx.Err() != nil {
			return 0, errors.Join(err, ctx.Err())
		}
	}
	return n / time.Since(began).Seconds(), nil
}

// add appends the times of samples, and joins their errors to err.
func add(us []float64, samples []sample, err error) ([]float64, error) {
	for _, s := range samples {
		us, err = append(us, s.us), errors.Join(err, s.err)
	}
	return us, err
}

type floorConfig struct{ Engine string }

// proxyRole is a process that only passes bytes on.
type proxyRole struct{ closer io.Closer }

func (proxyRole) Handle(context.Context, string, []byte) (any, error) {
	return nil, process.ErrUnknownCall
}

func (p proxyRole) Close() { _ = p.closer.Close() }

// startSplice passes the bytes of each connection on to one of its own, and back.
func startSplice(_ context.Context, config []byte) (process.Role, any, error) {
	cfg, listener, err := startProxy(config)
	if err != nil {
		return nil, nil, err
	}
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			go splice(in, cfg.Engine)
		}
	}()
	return proxyRole{listener}, listener.Addr().String(), nil
}

func splice(in net.Conn, engine string) {
	defer func() { _ = in.Close() }() // both ways end here
	out, err := net.Dial("tcp", engine)
	if err != nil {
		return
	}
	go func() {
		defer func() { _ = out.Close() }()
		pass(out, in)
	}()
	pass(in, out)
}

// pass reads and writes, as a proxy does that has to see the bytes; net.TCPConn by itself would let the kernel move them.
func pass(out io.Writer, in io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		if _, failed := out.Write(buf[:n]); err != nil || failed != nil {
			return
		}
	}
}

// startReverse is the standard library's proxy, which flushes each piece of an answer as it comes.
func startReverse(_ context.Context, config []byte) (process.Role, any, error) {
	cfg, listener, err := startProxy(config)
	if err != nil {
		return nil, nil, err
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: cfg.Engine})
	proxy.FlushInterval = -1
	proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true}
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }() // ends with Close
	return proxyRole{server}, listener.Addr().String(), nil
}

func startProxy(config []byte) (cfg floorConfig, l net.Listener, err error) {
	if err = json.Unmarshal(config, &cfg); err == nil {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	return cfg, l, err
}
