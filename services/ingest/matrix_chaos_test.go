package ingest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/libs/kvwire"
)

// chaos lets one fault after the other happen to two engines, without waiting for the one before to heal.
type chaos struct {
	*matrix
	r       *rand.Rand
	pools   []*blockPool
	kill    func()
	owners  int
	history []string
}

func (c *chaos) engines() (all []*engine) {
	for _, b := range c.pools {
		all = append(all, b.e)
	}
	return all
}

// start runs the next owner, of another name or of the same.
func (c *chaos) start(another bool) {
	if another {
		c.owners++
	}
	c.kill = c.mortal(fmt.Sprint("owner-", c.owners), c.engines()...)
}

// fault lets something happen to an engine, or to all.
func (c *chaos) fault(b *blockPool) (name string) {
	n := 1 + c.r.IntN(8)
	switch c.r.IntN(13) {
	case 0:
		b.e.pub.DropLive(n)
		return "frames lost"
	case 1:
		b.e.pub.RepeatLive(n)
		return "frames repeated"
	case 2:
		b.e.pub.ReverseLive(n)
		b.publish(n)
		return "frames reversed"
	case 3:
		b.e.pub.SpoilReplays(2, func(due []kvwire.Frame) ([]kvwire.Frame, bool) {
			return slices.Concat(due[:min(2, len(due))], due[min(2+n, len(due)):]), true
		})
		return "two replays with a hole that lies elsewhere each time"
	case 4:
		b.e.pub.SpoilReplays(1, func(due []kvwire.Frame) ([]kvwire.Frame, bool) { return due[:min(1+n, len(due))], n%2 == 0 })
		return "a replay cut"
	case 5:
		b.e.pub.SpoilReplays(1, func([]kvwire.Frame) ([]kvwire.Frame, bool) { return nil, false })
		return "a replay without an answer"
	case 6:
		b.e.started.Add(100)
		b.restart()
		return "restart"
	case 7:
		b.e.publish(append(append(b.step(), b.clear()), b.step()...)...)
		return "clear"
	case 8:
		b.e.ts -= 1000
		return "clock back"
	case 9:
		c.server.Stop()
		b.publish(n)
		c.startNATS()
		return "NATS restarted"
	case 10:
		_ = c.conn.Send(bus.AskSubject(fleet.PoolID(model), fleet.Bucket(b.e.id)), nil)
		return "a reader asks"
	case 11:
		c.rival(b.e)
		return "a rival claims"
	}
	c.kill()
	c.start(c.r.IntN(2) == 0)
	return "owner killed"
}

// Any faults one upon the other that leave the engines' buffers whole: exact in the end, never partial.
func TestAnyFaultsEndExact(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			c := &chaos{matrix: newMatrix(t), r: rand.New(rand.NewPCG(seed, 9))}
			for i := range uint64(2) {
				c.pools = append(c.pools, newBlockPool(t, 80, seed*2+i, kvwire.PublisherOptions{Legacy: i == 0}))
			}
			defer func() {
				if t.Failed() {
					t.Log(strings.Join(c.history, "; "))
				}
			}()
			c.start(true)
			for round := range 40 {
				for i, b := range c.pools {
					if c.r.IntN(2) == 0 {
						c.history = append(c.history, fmt.Sprintf("%d: %s", i, c.fault(b)))
					}
					b.publish(c.r.IntN(10))
				}
				if round%10 == 9 {
					for _, b := range c.pools {
						c.exactAndOK(b)
					}
				}
			}
			c.neverPartial()
		})
	}
}
