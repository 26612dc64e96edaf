-- {id, ...} -> {record, payload, result, error, {history entry, ...}, ...}, nothing where there is no record
return describe(input)
