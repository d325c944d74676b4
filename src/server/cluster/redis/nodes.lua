-- No arguments.
return append_live({ 'nodes' }, now())
