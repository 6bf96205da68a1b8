package meta

type settingsCache struct{}
