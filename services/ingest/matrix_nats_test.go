package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvwire"
)

// outage is how long NATS is away in TestNATSOutageAtFullRate; WARMPATH_OUTAGE=30s makes it as long as is promised.
func outage(t *testing.T) time.Duration {
	value := os.Getenv("WARMPATH_OUTAGE")
	if value == "" {
		return 3 * time.Second
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// keep runs two prompts each pause until ctx ends.
func (b *blockPool) keep(ctx context.Context, pause time.Duration) {
	pace := time.NewTicker(pause)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
			b.publish(2)
		}
	}
}

// keepAll lets all engines run prompts and returns how to stop them.
func keepAll(t *testing.T, pools []*blockPool, pause time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for _, b := range pools {
		all.Go(func() { b.keep(ctx, pause) })
	}
	stop = func() { cancel(); all.Wait() }
	t.Cleanup(stop)
	return stop
}

// NATS is away while engines go on at full rate: what waits is bounded by what they hold, and all is exact afterwards.
func TestNATSOutageAtFullRate(t *testing.T) {
	t.Parallel()
	const capacity = 500
	m := newMatrix(t)
	var pools []*blockPool
	var engines []*engine
	for seed := range uint64(4) {
		b := newBlockPool(t, capacity, seed, kvwire.PublisherOptions{})
		pools, engines = append(pools, b), append(engines, b.e)
	}
	m.ingest("a", engines...)
	for _, b := range pools {
		b.publish(10)
		m.exact(b)
	}
	stop := keepAll(t, pools, time.Millisecond)
	blocks := m.count("blocks_total")
	m.server.Stop()
	most, memory := 0.0, uint64(0)
	for end := time.Now().Add(outage(t)); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		most = max(most, m.count("unpublished_bytes"))
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		memory = max(memory, now.HeapInuse)
	}
	m.startNATS()
	stop()
	for _, b := range pools {
		m.exactAndOK(b)
	}
	m.neverPartial()
	if m.lives() != 4 {
		t.Errorf("%v lives of 4 engines", m.lives())
	}
	t.Logf("%.0f blocks; at most %.0f bytes waited, heap %d MiB", m.count("blocks_total")-blocks, most, memory>>20)
	if bound := float64(len(pools) * (maxMessage + 64<<10)); most > bound || most == 0 {
		t.Errorf("%.0f bytes waited, the bound is %.0f", most, bound)
	}
}

// NATS comes back without what it took last: sequences that were given are given again. The log is whole again although
// engines may say nothing more.
func TestNATSThatLostItsTailIsFilledAgain(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	m.times.fenced = 100 * time.Millisecond
	b := newBlockPool(t, 100, 1, kvwire.PublisherOptions{})
	m.ingest("a", b.e)
	b.publish(20)
	m.exactAndOK(b)
	m.server.Stop()
	old := t.TempDir()
	if err := os.CopyFS(old, os.DirFS(m.dir)); err != nil {
		t.Fatal(err)
	}
	m.startNATS()
	b.publish(50)
	m.exactAndOK(b)
	m.log.ends()
	m.depth.ends()
	m.server.Stop()
	m.dir = old
	m.startNATS()
	m.log, m.depth = readLog(t, m.conn, 16), readDepths(t, m.conn)
	m.exactAndOK(b)
	b.publish(20)
	m.exactAndOK(b)
	m.neverPartial()
}

const ingestProcess = "WARMPATH_TEST_INGEST"

// TestIngestProcess is the process that other tests kill.
func TestIngestProcess(t *testing.T) {
	value := os.Getenv(ingestProcess)
	if value == "" {
		t.Skip("it runs in other tests")
	}
	cfg := Config{Log: quiet(), times: quick()}
	if err := json.Unmarshal([]byte(value), &cfg); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

// process runs ingest as a process of its own.
func (m *matrix) process(instance string, engines ...*engine) *os.Process {
	m.t.Helper()
	cfg := struct {
		NATS, Instance string
		Engines        []Engine
	}{m.server.URL(), instance, nil}
	for _, e := range engines {
		cfg.Engines = append(cfg.Engines, e.config)
	}
	value, err := json.Marshal(cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.CommandContext(m.t.Context(), os.Args[0], "-test.run=^TestIngestProcess$")
	cmd.Env = append(os.Environ(), ingestProcess+"="+string(value))
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process
}

// An owner is killed, or stands still until another has its buckets and then goes on, while its engines do not rest: the
// lives go on, exact.
func TestKilledAndFrozenIngest(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "frozen": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMatrix(t)
			var pools []*blockPool
			var engines []*engine
			for seed := range uint64(3) {
				b := newBlockPool(t, 100, seed, kvwire.PublisherOptions{})
				for ownerOf(fleet.BucketOf(fleet.PoolID(model), b.e.id), []string{"a", "b"}) != "a" {
					b.e.config.Rank++
					b.e.id = b.e.config.ranks()[0].id
				}
				pools, engines = append(pools, b), append(engines, b.e)
			}
			m.ingest("b", engines...)
			a := m.process("a", engines...)
			eventually(t, "a owns all buckets", func() bool { return memberOf(m, "a") && m.count("buckets_owned") == 0 })
			before := map[*blockPool]uint64{}
			for _, b := range pools {
				b.publish(20)
				before[b] = m.exactAndOK(b)
			}
			stop := keepAll(t, pools, 20*time.Millisecond) // as fast as engines do; their buffers must reach back
			if err := a.Signal(signal); err != nil {
				t.Fatal(err)
			}
			eventually(t, "b owns a bucket", func() bool { return m.count("engines", "state=ok") == 3 })
			if signal == syscall.SIGSTOP {
				if err := a.Signal(syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
				eventually(t, "a owns all buckets again", func() bool { return m.count("buckets_owned") == 0 })
			}
			stop()
			for _, b := range pools {
				if g := m.exactAndOK(b); g != before[b] {
					t.Errorf("generation %d after %d", g, before[b])
				}
			}
			m.neverPartial()
		})
	}
}

func memberOf(m *matrix, instance string) bool {
	m.t.Helper()
	kv, err := m.conn.KV(m.t.Context(), bus.Members)
	if err != nil {
		m.t.Fatal(err)
	}
	_, err = kv.Get(m.t.Context(), fmt.Sprintf("ingest.%s", instance))
	return err == nil
}
