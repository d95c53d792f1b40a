package kube

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/warmpath/warmpath/services/autoscaler/internal/scalingpolicy"
)

const (
	stateKey    = "state"   // of the ConfigMap
	statusLimit = 32 << 10  // packed bytes; more lies in a ConfigMap
	packedLimit = 900 << 10 // what a ConfigMap may hold, with room for its metadata
	stateLimit  = 16 << 20  // unpacked
)

// pack makes a state small enough to keep, and text.
func pack(state []byte) (string, error) {
	if len(state) > stateLimit {
		return "", fmt.Errorf("pack state: %d bytes are more than %d", len(state), stateLimit)
	}
	var packed bytes.Buffer
	text := base64.NewEncoder(base64.StdEncoding, &packed)
	zipped := gzip.NewWriter(text)
	if _, err := zipped.Write(state); err != nil {
		return "", fmt.Errorf("pack state: %w", err)
	}
	if err := zipped.Close(); err != nil {
		return "", fmt.Errorf("pack state: %w", err)
	}
	if err := text.Close(); err != nil {
		return "", fmt.Errorf("pack state: %w", err)
	}
	if packed.Len() > packedLimit {
		return "", fmt.Errorf("pack state: %d bytes are more than %d", packed.Len(), packedLimit)
	}
	return packed.String(), nil
}

// unpack undoes pack. What swells beyond what pack takes is an error, and no memory.
func unpack(packed string) ([]byte, error) {
	if packed == "" {
		return nil, nil
	}
	zipped, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, bytes.NewReader([]byte(packed))))
	if err != nil {
		return nil, fmt.Errorf("unpack state: %w", err)
	}
	state, err := io.ReadAll(io.LimitReader(zipped, stateLimit+1))
	if err != nil {
		return nil, fmt.Errorf("unpack state: %w", err)
	}
	if len(state) > stateLimit {
		return nil, fmt.Errorf("unpack state: it is more than %d bytes", stateLimit)
	}
	return state, nil
}

// keepApart keeps a large state in a ConfigMap that goes with its policy, and says its name.
func (f *Fleet) keepApart(ctx context.Context, namespace string, owner metav1.OwnerReference, packed string) (string, error) {
	kept := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: owner.Name + "-warmpath-state", OwnerReferences: []metav1.OwnerReference{owner},
		},
		BinaryData: map[string][]byte{stateKey: []byte(packed)},
	}
	client := f.core.ConfigMaps(namespace)
	_, err := client.Update(ctx, kept, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = client.Create(ctx, kept, metav1.CreateOptions{})
	}
	if err != nil {
		return "", fmt.Errorf("keep state apart: %w", err)
	}
	return kept.Name, nil
}

func (p *policy) owner() metav1.OwnerReference {
	return metav1.OwnerReference{
		APIVersion: scalingpolicy.APIVersion, Kind: scalingpolicy.Kind, Name: p.object.GetName(), UID: p.object.GetUID(),
	}
}
