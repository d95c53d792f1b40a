package eventlog

import (
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

func TestRunSurvivesTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.Uint64(), 1, 5)
		change := func(label string) prefix.Change { return prefix.Change(rapid.IntRange(0, 2).Draw(t, label)) }
		in := prefix.Run{
			Copy: change("copy"), GPU: change("gpu"), Any: change("any"),
			Tier: prefix.Tier(rapid.IntRange(0, 2).Draw(t, "tier")), Group: rapid.IntRange(0, 9).Draw(t, "group"),
			BlockSize: rapid.IntRange(0, 512).Draw(t, "size"), HasParent: rapid.Bool().Draw(t, "hasParent"),
			Hashes: words.Draw(t, "hashes"), Keys: words.Draw(t, "keys"), Shown: words.Draw(t, "shown"),
			Split: rapid.Bool().Draw(t, "split"), Clear: rapid.Bool().Draw(t, "clear"),
		}
		if !in.HasParent && rapid.Bool().Draw(t, "scattered") {
			in.Parents = words.Draw(t, "parents")
		}
		if in.HasParent { // a parent of 0 is a parent
			in.Parent = rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64()).Draw(t, "parent")
		}
		wire, err := proto.Marshal(Logged(&in))
		if err != nil {
			t.Fatal(err)
		}
		var logged eventsv1.Run
		if err := proto.Unmarshal(wire, &logged); err != nil {
			t.Fatal(err)
		}
		out, err := Run(&logged)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(in, out) {
			t.Fatalf("%+v came back as %+v", in, out)
		}
	})
}

func TestRunOfALaterReleaseIsRefused(t *testing.T) {
	for name, run := range map[string]*eventsv1.Run{"change": {Gpu: 3}, "tier": {Tier: 3}, "negative": {Copy: -1}} {
		if _, err := Run(run); err == nil {
			t.Errorf("%s of an unknown number was read", name)
		}
	}
}
