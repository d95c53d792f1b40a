// Package daemon is what every Warmpath process has around its work: flags that may also come from the environment,
// structured logs, an operations server (/metrics, /healthz, /readyz, /debug/pprof) and a drain on the first signal.
//
// It knows no service. A service is a function Run(ctx, Config) error; its main hands it a Process.
package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/peterbourgon/ff/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
)

// EnvPrefix begins the name of every environment variable that stands for a flag: --log-level is WARMPATH_LOG_LEVEL.
const EnvPrefix = "WARMPATH"

// Process is what Main hands to the work.
type Process struct {
	Name     string
	Log      *slog.Logger
	Registry *prometheus.Registry
	Health   *Health
	Pages    http.ServeMux // of the service, on its operations server; may be added to at any time
}

// NewProcess returns a process that logs to w what is of at least level: a line is time, level, message and one JSON object.
func NewProcess(name string, w io.Writer, level slog.Level) *Process {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &Process{
		Name:     name,
		Log:      slog.New(newLines(w, level)).With("service", name),
		Registry: registry,
		Health:   &Health{},
	}
}

// Main is the body of a service's main function: it parses flags and environment, serves operations, runs the work
// until it ends or a signal comes, and exits. A second signal ends the process at once.
func Main(name, about string, flags func(*flag.FlagSet), run func(context.Context, *Process) error) {
	err := execute(name, about, os.Args[1:], os.Environ(), flags, run)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	os.Exit(1)
}

func execute(name, about string, args, environ []string, flags func(*flag.FlagSet),
	run func(context.Context, *Process) error,
) error {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	ops := fs.String("ops", "127.0.0.1:0", "host:port of /metrics, /healthz, /readyz and /debug/pprof")
	var level slog.Level
	fs.TextVar(&level, "log-level", slog.LevelInfo, "least level to log: debug, info, warn, error")
	flags(fs)
	fs.Usage = func() { usage(fs, name, about) }
	if err := Parse(fs, args, environ); err != nil {
		return err
	}
	ctx, stop := SignalContext()
	defer stop()
	p := NewProcess(name, os.Stderr, level)
	listener, err := net.Listen("tcp", *ops)
	if err != nil {
		return fmt.Errorf("listen for operations: %w", err)
	}
	p.Log.Info("started", "ops", "http://"+listener.Addr().String())
	return p.Run(ctx, listener, run)
}

// Run serves operations on listener and runs the work beside it; it returns when both have ended.
// The operations server outlives the work, so that a drain can be watched.
func (p *Process) Run(ctx context.Context, listener net.Listener, run func(context.Context, *Process) error) error {
	group, opsCtx := errgroup.WithContext(context.WithoutCancel(ctx))
	opsCtx, stopOps := context.WithCancel(opsCtx)
	group.Go(func() error { return serveOps(opsCtx, listener, p) })
	group.Go(func() error {
		defer stopOps()
		if err := run(ctx, p); err != nil && (ctx.Err() == nil || !errors.Is(err, context.Canceled)) {
			return err
		}
		p.Log.Info("stopped")
		return nil
	})
	return group.Wait()
}

// SignalContext ends with the first SIGINT or SIGTERM; the next one has its usual effect.
func SignalContext() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// Parse sets flags from args, then from environ for those that args leave out. An environment variable with our
// prefix that names no flag is an error: a misspelt setting must not be ignored.
func Parse(fs *flag.FlagSet, args, environ []string) error {
	for _, pair := range environ {
		key, _, _ := strings.Cut(pair, "=")
		name, ours := strings.CutPrefix(key, EnvPrefix+"_")
		if !ours {
			continue
		}
		if fs.Lookup(strings.ReplaceAll(strings.ToLower(name), "_", "-")) == nil {
			return fmt.Errorf("environment variable %s names no flag of %s", key, fs.Name())
		}
	}
	return ff.Parse(fs, args, ff.WithEnvVarPrefix(EnvPrefix))
}

func usage(fs *flag.FlagSet, name, about string) {
	fmt.Fprintf(fs.Output(), "%s: %s\n\nEvery flag may be set as %s_<FLAG> in the environment.\n\nFlags:\n", name, about, EnvPrefix)
	fs.PrintDefaults()
}
