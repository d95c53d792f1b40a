package plane

import (
	"cmp"
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/bus"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// stored is what lies in a stretch of the event log, in bytes.
type stored struct {
	messages  int
	data      int // of the messages
	deltas    int // of the parts that are deltas, and of the messages around them
	snapshots int // of the parts of snapshots
	digests   int
	carriers  int // messages with a delta in them
}

// readStored reads the messages after one sequence up to another.
func readStored(ctx context.Context, conn *bus.Conn, after, last uint64) (s stored, err error) {
	if last <= after {
		return s, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var bad error
	err = conn.Read(ctx, bus.Span{Stream: bus.Events, From: after + 1, To: last}, func(m bus.Message) {
		bad = cmp.Or(bad, s.add(m.Data))
	})
	return s, cmp.Or(err, bad, ctx.Err())
}

func (s *stored) add(data []byte) error {
	var m eventsv1.Message
	if err := proto.Unmarshal(data, &m); err != nil {
		return err
	}
	s.messages++
	s.data += len(data)
	other, carries := 0, false
	for _, p := range m.Parts {
		size := proto.Size(p)
		switch {
		case p.GetDelta() != nil:
			carries = true
			continue
		case p.GetSnapshot() != nil:
			s.snapshots += size
		case p.GetDigest() != nil:
			s.digests += size
		}
		other += size
	}
	if carries {
		s.carriers++
		s.deltas += len(data) - other
	}
	return nil
}

// added is what the server's store adds to a message, on average, where all takes bytes: subject, headers, checksum.
func (s *stored) added(bytes float64) float64 {
	return (bytes - float64(s.data)) / float64(max(s.messages, 1))
}

// storedDeltas is what the deltas take in the store, with what is added to the messages that carry them.
func (s *stored) storedDeltas(bytes float64) float64 {
	return float64(s.deltas) + s.added(bytes)*float64(s.carriers)
}
