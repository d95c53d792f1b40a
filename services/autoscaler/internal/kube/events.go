package kube

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	core "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// The kinds of Events.
const (
	normal  = corev1.EventTypeNormal
	warning = corev1.EventTypeWarning
)

// events tells a policy's history to `kubectl describe`. It sends in the background, merges what repeats, and drops what
// cannot be sent: Events are for people.
type events struct {
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
}

func newEvents(ctx context.Context, client core.CoreV1Interface) events {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&core.EventSinkImpl{Interface: client.Events("")})
	recorder := broadcaster.NewRecorder(runtime.NewScheme(), corev1.EventSource{Component: "warmpath-autoscaler"})
	return events{broadcaster, recorder}
}

func (e events) say(k key, kind, reason, format string, args ...any) {
	e.recorder.Eventf(k.about(), kind, reason, format, args...)
}

func (e events) stop() { e.broadcaster.Shutdown() }
