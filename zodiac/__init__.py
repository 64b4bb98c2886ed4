"""The rooms behind the scripts: each module has one job and imports only the modules it needs."""
