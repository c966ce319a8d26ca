"""Reading real modules: the only floor besides the schemes that imports torch below the verbs."""
