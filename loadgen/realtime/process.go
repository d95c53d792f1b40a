package realtime

import (
	"math"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process is what this process took while the trace ran: engines, services, NATS and client together.
type Process struct {
	Cores      float64 `json:"cpu_cores"`             // processors that it kept busy, on average
	OtherCores float64 `json:"cpu_cores_of_others"`   // processors that others kept busy meanwhile; more than ~0 spoils the figures
	GCCores    float64 `json:"cpu_cores_gc"`          // of cpu_cores, those that collected garbage
	GCPause    float64 `json:"gc_pause_max_ms"`       // longest stop of all goroutines, to the bucket's upper bound
	RunQueue50 float64 `json:"goroutine_wait_p50_ms"` // from when a goroutine could run until it did
	RunQueue99 float64 `json:"goroutine_wait_p99_ms"`
}

// usage is a reading of counters that only grow.
type usage struct {
	at            time.Time
	own, machine  float64 // seconds of processors
	gc            float64
	pauses, queue *metrics.Float64Histogram
}

// Watch begins to watch the process; the function that it returns says what it took since.
func Watch() func() Process {
	before := readUsage()
	return func() Process { return before.until(readUsage()) }
}

func readUsage() usage {
	u := usage{at: time.Now(), machine: machineSeconds()}
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) == nil {
		u.own = time.Duration(r.Utime.Nano() + r.Stime.Nano()).Seconds()
	}
	samples := []metrics.Sample{
		{Name: "/cpu/classes/gc/total:cpu-seconds"}, {Name: "/sched/pauses/total/gc:seconds"}, {Name: "/sched/latencies:seconds"},
	}
	metrics.Read(samples)
	u.gc, u.pauses, u.queue = samples[0].Value.Float64(), samples[1].Value.Float64Histogram(), samples[2].Value.Float64Histogram()
	return u
}

// machineSeconds is how long the machine's processors were busy since it started; 0 where nobody says.
func machineSeconds() (busy float64) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(data), "\n")
	const perSecond = 100 // what Linux tells programs, whatever its own clock does
	for i, field := range strings.Fields(line) {
		if i == 0 || i == 4 || i == 5 || i > 8 { // name, idle, waiting for disks; guests are counted as users already
			continue
		}
		n, _ := strconv.ParseFloat(field, 64)
		busy += n / perSecond
	}
	return busy
}

func (u usage) until(v usage) Process {
	wall := math.Max(v.at.Sub(u.at).Seconds(), 1e-9)
	p := Process{Cores: (v.own - u.own) / wall, GCCores: (v.gc - u.gc) / wall}
	if v.machine > 0 {
		p.OtherCores = math.Max(0, (v.machine-u.machine)/wall-p.Cores)
	}
	p.GCPause = 1000 * atMost(u.pauses, v.pauses, 1)
	p.RunQueue50, p.RunQueue99 = 1000*atMost(u.queue, v.queue, .5), 1000*atMost(u.queue, v.queue, .99)
	return p
}

// atMost is the upper bound of the bucket that holds quantile q of what came between two readings; 0 of nothing.
func atMost(before, after *metrics.Float64Histogram, q float64) float64 {
	all := uint64(0)
	for i := range after.Counts {
		all += after.Counts[i] - before.Counts[i]
	}
	seen, rank := uint64(0), uint64(math.Ceil(q*float64(all)))
	for i := range after.Counts {
		if seen += after.Counts[i] - before.Counts[i]; seen >= rank && rank > 0 {
			if bound := after.Buckets[i+1]; !math.IsInf(bound, 1) {
				return bound
			}
			return after.Buckets[i]
		}
	}
	return 0
}
