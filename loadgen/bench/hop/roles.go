package hop

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/loadgen/process"
	"github.com/warmpath/warmpath/services/router"
)

// Serve is the body of a process that Run started, in the role of that name: it answers the calls on in until in or ctx
// ends.
func Serve(ctx context.Context, name string, in io.Reader, out io.Writer) error {
	return process.Serve(ctx, map[string]process.Starter{
		"nats": process.StartNATS, "backend": startBackend, "scorer": startScorer, "router": startRouter,
		"splice": startSplice, "reverse": startReverse,
	}, name, in, out)
}

// logger writes what is out of order; a process's log is shown where it fails.
func logger(name string) *slog.Logger {
	return daemon.NewProcess(name, os.Stderr, slog.LevelWarn).Log
}

// routerRole is the router as cmd/router runs it. Its decision lines are written, to where nobody reads them.
type routerRole struct {
	stop    context.CancelFunc
	done    chan error
	profile *os.File
}

type routerConfig struct{ NATS string }

// startRouter answers with the router's address once it is ready.
func startRouter(ctx context.Context, config []byte) (process.Role, any, error) {
	var cfg routerConfig
	if err := json.Unmarshal(config, &cfg); err != nil {
		return nil, nil, err
	}
	listener, err := daemon.Listen(nil, "")
	if err != nil {
		return nil, nil, err
	}
	nowhere, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, nil, err
	}
	var health daemon.Health
	ctx, stop := context.WithCancel(ctx)
	r := &routerRole{stop: stop, done: make(chan error, 1)}
	go func() {
		defer nowhere.Close()
		r.done <- router.Run(ctx, router.Config{NATS: cfg.NATS, Instance: "bench", Listener: listener, Health: &health,
			Metrics: prometheus.NewRegistry(), Log: daemon.NewProcess("router", nowhere, slog.LevelInfo).Log})
	}()
	err = until(ctx, patience, health.Ready)
	if err != nil {
		stop()
		return nil, nil, fmt.Errorf("start the router: %w", err)
	}
	return r, listener.Addr().String(), nil
}

// memory is what a process has allocated and holds.
type memory struct {
	Mallocs  uint64
	Resident int64 // bytes
}

// Handle answers "memory", "settle" (memory after a collection that gave back what it could), and "profile", which
// writes the processor's profile from the first to the second call into the file that the first names.
func (r *routerRole) Handle(_ context.Context, name string, args []byte) (any, error) {
	switch name {
	case "settle":
		debug.FreeOSMemory()
		return readMemory()
	case "memory":
		return readMemory()
	case "profile":
		return nil, r.toggle(args)
	}
	return nil, process.ErrUnknownCall
}

func (r *routerRole) toggle(args []byte) error {
	if r.profile != nil {
		pprof.StopCPUProfile()
		file := r.profile
		r.profile = nil
		return file.Close()
	}
	var path string
	if err := json.Unmarshal(args, &path); err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	r.profile = file
	return pprof.StartCPUProfile(file)
}

func (r *routerRole) Close() {
	r.stop()
	if err := <-r.done; err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func readMemory() (m memory, err error) {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	m.Mallocs = stats.Mallocs
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return m, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return m, fmt.Errorf("read /proc/self/statm: %q", text)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	m.Resident = pages * int64(os.Getpagesize())
	return m, err
}

// patience is how long what should take a moment may take on a machine that is busy with other things.
const patience = time.Minute

// until polls until ok returns nil.
func until(ctx context.Context, limit time.Duration, ok func() error) error {
	deadline, tick := time.Now().Add(limit), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
