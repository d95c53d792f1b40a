package daemon

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestParseTakesArgumentsBeforeEnvironment(t *testing.T) {
	t.Setenv("WARMPATH_NATS", "nats://from-env")
	t.Setenv("WARMPATH_SHARD", "3")
	fs := flag.NewFlagSet("index", flag.ContinueOnError)
	nats := fs.String("nats", "", "")
	shard := fs.Int("shard", 0, "")
	environ := []string{"WARMPATH_NATS=nats://from-env", "WARMPATH_SHARD=3", "HOME=/"}
	if err := Parse(fs, []string{"--nats", "nats://from-args"}, environ); err != nil {
		t.Fatal(err)
	}
	if *nats != "nats://from-args" || *shard != 3 {
		t.Fatalf("nats %q shard %d, want the argument and 3", *nats, *shard)
	}
}

func TestParseRefusesUnknownVariable(t *testing.T) {
	fs := flag.NewFlagSet("index", flag.ContinueOnError)
	err := Parse(fs, nil, []string{"WARMPATH_SHRAD=3"})
	if err == nil || !strings.Contains(err.Error(), "WARMPATH_SHRAD") {
		t.Fatalf("error %v, want one that names WARMPATH_SHRAD", err)
	}
}

func TestReadinessNamesWhatIsMissing(t *testing.T) {
	var h Health
	if h.Ready() == nil {
		t.Fatal("ready with no part known")
	}
	h.Set("index", "")
	h.Set("scorer", "no index member")
	if err := h.Ready(); err == nil || err.Error() != "scorer: no index member" {
		t.Fatalf("error %v", err)
	}
	h.Set("scorer", "")
	if err := h.Ready(); err != nil {
		t.Fatal(err)
	}
	var none *Health
	none.Set("index", "")
}

func TestRunServesOperationsUntilTheWorkHasDrained(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := NewProcess("test", io.Discard, slog.LevelInfo)
	ctx, cancel := context.WithCancel(t.Context())
	base := "http://" + listener.Addr().String()
	probe := func(path string) int {
		resp, err := http.Get(base + path)
		if err != nil {
			t.Error(err)
			return 0
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	err = p.Run(ctx, listener, func(ctx context.Context, p *Process) error {
		if code := probe("/readyz"); code != http.StatusServiceUnavailable {
			t.Errorf("readyz %d before ready", code)
		}
		p.Health.Set("work", "")
		if code := probe("/readyz"); code != http.StatusOK {
			t.Errorf("readyz %d when ready", code)
		}
		p.Pages.HandleFunc("GET /decisions", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
		if here, nowhere := probe("/decisions"), probe("/other"); here != http.StatusTeapot || nowhere != http.StatusNotFound {
			t.Errorf("the service's page %d, no page %d", here, nowhere)
		}
		cancel()
		<-ctx.Done()
		if code := probe("/metrics"); code != http.StatusOK {
			t.Errorf("metrics %d while draining", code)
		}
		return ctx.Err()
	})
	if err != nil {
		t.Fatalf("run: %v, want nil after a cancel", err)
	}
}

func TestRunReportsACancelledPartOfWorkThatWasNotCancelled(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := NewProcess("test", io.Discard, slog.LevelInfo)
	err = p.Run(t.Context(), listener, func(context.Context, *Process) error {
		return errors.Join(context.Canceled, io.ErrUnexpectedEOF)
	})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("error %v, want the work's", err)
	}
}

func TestServeHTTPWaitsForRequestsInFlight(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	started, release := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(started)
		<-release
		_, _ = io.WriteString(w, "whole")
	})
	served := make(chan error, 1)
	go func() { served <- ServeHTTP(ctx, listener, handler, 10*time.Second) }()
	body := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + listener.Addr().String())
		if err != nil {
			body <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		body <- string(b)
	}()
	<-started
	cancel()
	close(release)
	if got := <-body; got != "whole" {
		t.Fatalf("request in flight got %q", got)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
}

func TestServeHTTPReportsAListenerThatFails(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if err := ServeHTTP(t.Context(), listener, http.NotFoundHandler(), time.Second); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("error %v, want net.ErrClosed", err)
	}
}

func TestListenPrefersWhatItIsGiven(t *testing.T) {
	free, err := Listen(nil, "")
	if err != nil {
		t.Fatal(err)
	}
	defer free.Close()
	if ip := free.Addr().(*net.TCPAddr).IP; !ip.IsLoopback() {
		t.Errorf("without an address it listens on %s, not on loopback", ip)
	}
	if again, err := Listen(free, "not an address"); err != nil || again != free {
		t.Errorf("given a listener it returns %v, %v", again, err)
	}
	if _, err := Listen(nil, free.Addr().String()); err == nil || !strings.Contains(err.Error(), free.Addr().String()) {
		t.Errorf("error %v, want one that names the address in use", err)
	}
}
